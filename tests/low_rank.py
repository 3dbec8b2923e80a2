"""Weights and data for tests of low-rank techniques."""

import torch

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.techniques.implementations import compress
from engine.techniques.low_rank.correction.config import LowRankCorrection
from engine.techniques.low_rank.svd.config import SVD

CPU = torch.device("cpu")
WHITENED = ("asvd", "svd-llm", "fisher")


def weight_of(out: int = 24, in_: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(out, in_, generator=torch.Generator().manual_seed(seed))


def seen_of(width: int = 40, count: int = 200, seed: int = 1) -> InputStats:
    """Inputs that go together, of channels with strengths of their own."""
    draw = torch.Generator().manual_seed(seed)
    mixed = 0.3 * torch.randn(count, width, generator=draw) + torch.randn(
        count, 8, generator=draw
    ) @ torch.randn(8, width, generator=draw)
    seen = InputStats(width, CPU)
    seen.add(mixed * torch.randn(width, generator=draw).exp())
    return seen


def data_for(config: SVD | LowRankCorrection, weight: torch.Tensor) -> tuple:
    if config.needs == "nothing":
        return ()
    slopes = GradientStats(
        weight_of(*weight.shape, seed=2), weight_of(*weight.shape, seed=3).square()
    )
    return (slopes,) if config.needs == "gradients" else (seen_of(weight.shape[1]),)


def reconstruction(config: SVD, weight: torch.Tensor) -> torch.Tensor:
    return compress(config, weight, *data_for(config, weight)).to_dense()
