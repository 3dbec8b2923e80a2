"""AWQ (Lin et al. 2023, arXiv:2306.00978): scales for columns with strong inputs, then a clipped
range for each group.
"""

from itertools import accumulate, pairwise

import torch

from engine.calibration.activation_stats import InputStats
from engine.calibration.folding import Fold
from engine.techniques.hooks import compress, input_scales, storage_plan
from engine.techniques.quantization.awq.config import AWQ
from engine.techniques.quantization.grid import (
    ROWS_AT_ONCE,
    Levels,
    choose_qparams,
    dequantize,
    qparams_of,
    quantize,
    quantize_to_grid,
    range_bounds,
    round_to_grid,
    scale_groups,
)
from engine.tensors.weights import IntegerWeight

CLIPS = 20  # number of ranges, from the full one down to half of it


@input_scales.register
def input_scales_awq(
    config: AWQ, fold: Fold, weights: list[torch.Tensor], stats: InputStats
) -> tuple[torch.Tensor, list[tuple[float, float]]]:
    """Best scales, (in_,), and the error of each alpha."""
    tried = [
        (step / config.steps, fold.repeated_scales(channel_scales(stats, step / config.steps)))
        for step in range(config.steps)
    ]
    searched = [
        (alpha, sum(scaled_error(weight, scales, stats, config) for weight in weights))
        for alpha, scales in tried
    ]
    best = min(range(len(tried)), key=lambda index: searched[index][1])
    return tried[best][1], searched


def channel_scales(stats: InputStats, alpha: float) -> torch.Tensor:
    """Equation 4: the mean magnitude of each input to the power alpha, normalized around one.
    (in_,)
    """
    largest = stats.abs_mean.max()
    if not largest:
        return torch.ones_like(stats.abs_mean)
    # relative to the largest, so that no power leaves the range of float32
    scales = (stats.abs_mean / largest).clamp_min(1e-4).pow(alpha)
    return scales / (scales.max() * scales.min()).sqrt()


def scaled_error(
    weight: torch.Tensor, scales: torch.Tensor, stats: InputStats, config: AWQ
) -> float:
    """|X W - (X / s) quant(s W)|^2 over the calibration data."""
    return summed_output_error(rounded_weight(weight * scales, config) / scales - weight, stats)


def summed_output_error(weight_error: torch.Tensor, stats: InputStats) -> float:
    """Squared error of the layer's outputs, summed over the calibration data: the trace of D G
    D^T.
    """
    return sum(
        (part @ stats.gram).mul_(part).sum().item() for part in weight_error.split(ROWS_AT_ONCE)
    )


def rounded_weight(weight: torch.Tensor, config: AWQ) -> torch.Tensor:
    """The weight after plain rounding. (out, in_)"""
    rounding = config.rounding()
    levels = Levels.of(rounding)
    parts = [
        dequantize(quantize(part, *p, levels), *p).flatten(1)
        for part in scale_groups(weight, rounding)
        for p in [choose_qparams(part, rounding)]
    ]
    return torch.cat(parts, dim=1)


@compress.register
def compress_awq(config: AWQ, weight: torch.Tensor, stats: InputStats) -> IntegerWeight:
    if not config.clip:
        return round_to_grid(weight, config.rounding())
    groups = [
        group.unsqueeze(1)
        for part in scale_groups(weight, config.rounding())
        for group in part.unbind(1)
    ]
    edges = [0, *accumulate(group.shape[-1] for group in groups)]
    grams = [stats.gram[begin:end, begin:end] for begin, end in pairwise(edges)]
    params = [
        clipped_qparams(group, gram, config) for group, gram in zip(groups, grams, strict=True)
    ]
    scales, zeros = (
        torch.cat([part.squeeze(-1) for part in column], dim=1)
        for column in zip(*params, strict=True)
    )
    return quantize_to_grid(weight, config.rounding(), scales, zeros)


def clipped_qparams(
    group: torch.Tensor, gram: torch.Tensor, config: AWQ
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero code of the range with the least output error of one group, for each row.
    group: (out, 1, width)
    """
    rounding = config.rounding()
    levels, (low, high) = Levels.of(rounding), range_bounds(group, rounding)
    best, smallest_error = qparams_of(low, high, levels, rounding), torch.full_like(low, torch.inf)
    for shrink in torch.linspace(1, 0.5, CLIPS).tolist():
        tried = qparams_of(low * shrink, high * shrink, levels, rounding)
        residual = dequantize(quantize(group, *tried, levels), *tried) - group
        error = (residual @ gram).mul_(residual).sum(-1, keepdim=True)
        best = tuple(
            torch.where(error < smallest_error, new, old)
            for new, old in zip(tried, best, strict=True)
        )
        smallest_error = torch.minimum(error, smallest_error)
    return best


@storage_plan.register
def storage_plan_awq(config: AWQ, shape: tuple[int, int]) -> IntegerWeight:
    return storage_plan(config.rounding(), shape)
