"""Weights and data for tests of pruning techniques."""

import torch

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.techniques.pruning.options import Pruning
from engine.techniques.pruning.sparsegpt.config import SparseGPT
from engine.techniques.pruning.unstructured.config import (
    Magnitude,
    OptimalBrainDamage,
    Random,
    Taylor,
    Wanda,
)

CPU = torch.device("cpu")
BY_WEIGHT = (Magnitude, Random)
BY_INPUT = (Wanda, SparseGPT)
BY_SLOPE = (Taylor, OptimalBrainDamage)
EVERY = BY_WEIGHT + BY_INPUT + BY_SLOPE


def weight_of(out: int = 24, in_: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(out, in_, generator=torch.Generator().manual_seed(seed))


def seen_of(width: int = 40, count: int = 200, loud: float = 1.0) -> InputStats:
    """Inputs that go together, of channels with strengths of their own."""
    draw = torch.Generator().manual_seed(1)
    mixed = 0.3 * torch.randn(count, width, generator=draw) + torch.randn(
        count, 8, generator=draw
    ) @ torch.randn(8, width, generator=draw)
    seen = InputStats(width, CPU)
    seen.add(mixed * (loud * torch.randn(width, generator=draw)).exp())
    return seen


def slopes_like(weight: torch.Tensor) -> GradientStats:
    return GradientStats(
        weight_of(*weight.shape, seed=2), weight_of(*weight.shape, seed=3).square()
    )


def given_to(config: Pruning, weight: torch.Tensor) -> tuple:
    if config.needs == "nothing":
        return config, weight
    return (
        config,
        weight,
        slopes_like(weight) if config.needs == "gradients" else seen_of(weight.shape[1]),
    )
