"""Errors of one layer against closed forms."""

import math

import numpy as np
import pytest
import torch

from engine.measurement.error import (
    BINS,
    LayerComparison,
    histogram_rows,
    output_error,
    relative_norm,
    unchanged_row,
)
from engine.models.layers import Layer
from engine.tensors.weights import DenseWeight
from tests.matrices import normal

LAYER = Layer("model.layers.0.up", "linear", (12, 20), 2, "")


def row_of(original: torch.Tensor, compressed: torch.Tensor, **more):
    stored = DenseWeight((12, 20), compressed)
    return LayerComparison(LAYER, original, compressed).row(stored, "a technique", **more)


@pytest.mark.parametrize("share", [0.5, 0.1, 1e-3])
def test_weights_that_are_all_off_by_a_share_have_that_relative_error(share):
    original = normal(12, 20)
    row = row_of(original, original * (1 + share))
    assert row.relative_error == pytest.approx(share, rel=1e-3)
    assert row.sqnr_db == pytest.approx(-20 * math.log10(share), rel=1e-3)
    assert row.largest_error == pytest.approx(share * original.abs().max().item(), rel=1e-3)


def test_an_unchanged_weight_has_no_error_and_infinite_sqnr():
    row = row_of(normal(12, 20), normal(12, 20))
    assert row.relative_error == row.largest_error == 0 and row.sqnr_db == math.inf
    assert row.bits_per_weight == 32 and row.original_bytes == 2 * 12 * 20


def test_the_output_error_is_that_of_the_outputs():
    original, inputs = normal(12, 20), normal(50, 20, seed=1)
    compressed = original + 0.01 * normal(12, 20, seed=2)
    due = np.linalg.norm(inputs @ (compressed - original).T) / np.linalg.norm(inputs @ original.T)
    row = row_of(original, compressed, inputs=(inputs, inputs))
    assert row.output_error == pytest.approx(due, rel=1e-3)
    assert output_error(inputs, 0 * inputs, compressed, original) == pytest.approx(1)
    assert math.isnan(row_of(original, compressed).output_error)


def test_zeros_are_counted_as_sparsity():
    compressed = normal(12, 20)
    compressed[:3] = 0
    assert row_of(normal(12, 20), compressed).sparsity == pytest.approx(3 / 12)


def test_channels_have_their_own_range_and_error():
    original = normal(12, 20)
    compressed = original.clone()
    compressed[4] *= 1.5
    channels = LayerComparison(LAYER, original, compressed).channels()
    assert list(channels.channel) == list(range(12))
    assert channels.relative_error[4] == pytest.approx(0.5, rel=1e-4)
    assert channels.relative_error.drop(4).eq(0).all()
    assert channels.minimum.to_numpy() == pytest.approx(original.amin(1).numpy())


def test_histograms_are_numpys_over_one_common_range():
    original, compressed = normal(12, 20), 3 * normal(12, 20, seed=1)
    rows = list(LayerComparison(LAYER, original, compressed).histogram())
    both = torch.stack([original, compressed])
    ends = both.min().item(), both.max().item()
    for version, weight in (("original", original), ("compressed", compressed)):
        version_rows = [row for row in rows if row.version == version]
        counts, edges = np.histogram(weight.double().numpy(), BINS, ends)
        assert [row.count for row in version_rows] == counts.tolist()
        assert [row.left for row in version_rows] == pytest.approx(edges[:-1].tolist(), abs=1e-5)


def test_a_constant_weight_is_counted_in_one_bin_of_finite_width():
    rows = histogram_rows("a", "original", torch.full((3, 4), 0.7), 0.7, 0.7)
    assert sum(row.count for row in rows) == 12 and all(row.right > row.left for row in rows)


def test_a_tied_layer_takes_no_bytes_of_its_own():
    tied = Layer("lm_head", "linear", (12, 20), 2, "embed")
    assert unchanged_row(tied, 480).size_bytes == unchanged_row(tied, 480).original_bytes == 0
    assert unchanged_row(LAYER, 480).bits_per_weight == unchanged_row(tied, 480).bits_per_weight


def test_the_norm_of_nothing_is_nothing():
    assert relative_norm(torch.zeros(3), torch.zeros(3)) == 0
