import numpy as np
import pytest

from engine.measurement.spectrum import spectrum
from tests.matrices import normal


def test_singular_values_and_their_energy_are_numpys():
    weight = normal(9, 14)
    rows = spectrum("a", weight)
    values = np.linalg.svd(weight.numpy(), compute_uv=False)
    assert [row.singular_value for row in rows] == pytest.approx(values.tolist(), rel=1e-4)
    energy = np.cumsum(values**2) / np.sum(values**2)
    assert [row.cumulative_energy for row in rows] == pytest.approx(energy.tolist(), rel=1e-4)


def test_a_layer_of_zeros_has_no_energy():
    assert {row.cumulative_energy for row in spectrum("a", 0 * normal(3, 4))} == {0}
