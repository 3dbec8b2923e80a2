"""Weights and inputs for tests of GPTQ and AWQ."""

import torch

from engine.calibration import InputStats
from engine.techniques.quantization.awq.method import summed_output_error

CPU = torch.device("cpu")
SHAPES = [(24, 172), (9, 352), (16, 64)]


def rows_of(width: int, count: int = 600, seed: int = 0) -> torch.Tensor:
    """Inputs of which some channels are loud and many go together.  (count, width)"""
    draw = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, width // 2, generator=draw) @ torch.randn(
        width // 2, width, generator=draw
    )
    return mixed * (0.7 * torch.randn(width, generator=draw)).exp() + 0.1 * torch.randn(
        count, width, generator=draw
    )


def seen_of(rows: torch.Tensor) -> InputStats:
    seen = InputStats(rows.shape[1], CPU)
    seen.add(rows)
    return seen


def weight_of(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def output_loss(stored, weight: torch.Tensor, seen: InputStats) -> float:
    return summed_output_error(stored.to_dense() - weight, seen)
