"""Scales and ranges of inputs against llm-compressor's and torch's results."""

import pytest
import torch

from engine.techniques.quantization.activations.config import Activations
from engine.techniques.quantization.activations.method import smoothing_scales, static_range
from tests.goldens import golden, golden_stats


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.8])
def test_smoothing_scales_are_llm_compressors_but_for_one_factor(alpha):
    """It takes max - min of the inputs and twice the weights' largest: on inputs of both signs 2^(2
    alpha - 1) for all channels alike.
    """
    due = golden("smoothquant")
    scales = smoothing_scales(
        [due["first"], due["second"]], golden_stats(due["inputs"][None], False), alpha
    )
    torch.testing.assert_close(
        scales * 2 ** (2 * alpha - 1), due[f"scales-{alpha}"], rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("observer", ["min-max", "moving-average"])
def test_scale_and_zero_point_of_a_range_are_torchs(observer):
    due = golden("observers")
    ours = static_range(Activations(observer=observer), golden_stats(due["batches"], False))
    torch.testing.assert_close(ours["scale"], due[f"torch.{observer}.scale"], rtol=1e-6, atol=0)
    assert ours["zero"].item() == due[f"torch.{observer}.zero"].item()
