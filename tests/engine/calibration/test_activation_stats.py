"""Statistics of what flows into a layer."""

import pytest
import torch

from engine.calibration import InputStats
from engine.errors import PlainError

CPU = torch.device("cpu")


def test_the_gram_matrix_in_two_halves_is_the_same():
    rows = torch.randn(64, 37, generator=torch.Generator().manual_seed(0))
    whole, halves = InputStats(37, CPU), InputStats(37, CPU)
    whole.add(rows)
    halves.add(rows[:20])
    halves.add(rows[20:])
    torch.testing.assert_close(whole.gram, halves.gram)
    torch.testing.assert_close(whole.gram, rows.T @ rows)


def test_scaled_inputs_are_seen_scaled():
    rows, scales = torch.randn(64, 12), torch.rand(12) + 0.5
    for wants_gram in (True, False):
        one, two = InputStats(12, CPU, wants_gram), InputStats(12, CPU, wants_gram)
        one.add(rows)
        two.add(rows / scales)
        other = one.divided_by(scales)
        for name in ("gram", "abs_mean", "abs_max"):
            torch.testing.assert_close(getattr(other, name), getattr(two, name))
        torch.testing.assert_close(other.sample(), two.sample())
        assert [pytest.approx(pair) for pair in other.extremes] == two.extremes


def test_inputs_that_are_no_numbers_are_refused_with_the_layers_name():
    seen = InputStats(4, CPU)
    with pytest.raises(PlainError, match="No calibration data reached some.layer"):
        seen.check_usable("some.layer")
    seen.add(torch.tensor([[1.0, float("nan"), 0, 0]]))
    with pytest.raises(PlainError, match="some.layer become NaN"):
        seen.check_usable("some.layer")
