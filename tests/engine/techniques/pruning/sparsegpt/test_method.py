"""SparseGPT against closed forms."""

import pytest
import torch

from engine.calibration import InputStats
from engine.techniques.implementations import compress
from engine.techniques.pruning.sparsegpt.config import SparseGPT
from engine.techniques.quantization.awq.method import summed_output_error
from tests.cases import for_each
from tests.goldens import PRUNED, golden, golden_stats, share_equal
from tests.pruning import seen_of, weight_of

CPU = torch.device("cpu")


def test_sparsegpt_with_uncorrelated_inputs_changes_no_weight_that_stays():
    weight, seen = weight_of(), InputStats(40, CPU)
    seen.add(
        torch.eye(40) * torch.rand(40, generator=torch.Generator().manual_seed(5)).add(0.5)[:, None]
    )
    result = compress(SparseGPT(), weight, seen).to_dense()
    assert torch.equal(result[result != 0], weight[result != 0])


@for_each(
    "asked",
    [
        {},
        {"scope": "row"},
        {"pattern": "2:4"},
        {"pattern": "4:8"},
        {"sparsity": 0.7, "block_columns": 16},
    ],
)
def test_sparsegpt_loses_less_of_the_output_than_the_same_weights_removed_alone(asked):
    weight, seen = weight_of(64, 96), seen_of(96, 400)
    result = compress(SparseGPT(**asked), weight, seen).to_dense()
    alone = weight * (result != 0)
    assert summed_output_error(result - weight, seen) < 0.9 * summed_output_error(
        alone - weight, seen
    )


def test_sparsegpt_in_blocks_pushes_errors_on_as_in_one():
    """If the pattern determines what is removed, the number of columns per block has no effect."""
    weight, seen = weight_of(16, 96), seen_of(96, 400)
    results = [
        compress(SparseGPT(pattern="2:4", block_columns=width), weight, seen).to_dense()
        for width in (4, 30, 96)
    ]
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-3, atol=1e-4)


def test_inputs_that_are_always_zero_cost_their_weights_nothing_more():
    weight, seen = weight_of(), InputStats(40, CPU)
    inputs = torch.randn(100, 40, generator=torch.Generator().manual_seed(6))
    inputs[:, 3] = 0
    seen.add(inputs)
    result = compress(SparseGPT(sparsity=0.3), weight, seen).to_dense()
    assert not result[:, 3].any() and result.isfinite().all() and "always zero" in seen.warnings[0]


@for_each("name", PRUNED)
def test_sparsegpt_loses_what_llm_compressors_loses(name):
    """An unstructured block of theirs removes one weight more, the one at its threshold: of these
    small blocks that is a two thousandth.
    """
    due = golden("pruning")
    weight, seen, theirs = (
        due["weight"].float(),
        golden_stats(due["inputs"][None]),
        due[f"sparsegpt.{name}"],
    )
    ours = compress(SparseGPT(**PRUNED[name]), weight, seen).to_dense()
    assert share_equal(ours != 0, theirs != 0) > 0.995
    ratio = summed_output_error(ours - weight, seen) / summed_output_error(theirs - weight, seen)
    assert ratio == pytest.approx(1, rel=0.01) if ":" in name else 0.98 < ratio < 1.005
