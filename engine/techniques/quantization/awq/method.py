"""AWQ (Lin et al. 2023, arXiv:2306.00978): scales for the columns behind strong inputs, then a
clipped range for each group.
"""

from itertools import accumulate, pairwise

import torch

from engine.calibration.activation_stats import Seen
from engine.calibration.folding import Fold
from engine.techniques.hooks import blueprint, compress, scales_for
from engine.techniques.quantization.awq.config import AWQ
from engine.techniques.quantization.grid import (
    ROWS_AT_ONCE,
    Levels,
    bounds,
    choose_qparams,
    dequantize,
    grouped,
    qparams_of,
    quantize,
    stored_codes,
    stored_grid,
)
from engine.tensors.weights import Grid

CLIPS = 20  # ranges tried from the full one down to half of it


@scales_for.register
def scales_for_awq(
    how: AWQ, fold: Fold, weights: list[torch.Tensor], seen: Seen
) -> tuple[torch.Tensor, list[tuple[float, float]]]:
    """The best scales, (in_,), and the error of each alpha tried."""
    tried = [
        (step / how.steps, fold.tied(strengths(seen, step / how.steps)))
        for step in range(how.steps)
    ]
    searched = [
        (alpha, sum(scaled_error(weight, scales, seen, how) for weight in weights))
        for alpha, scales in tried
    ]
    best = min(range(len(tried)), key=lambda place: searched[place][1])
    return tried[best][1], searched


def strengths(seen: Seen, alpha: float) -> torch.Tensor:
    """Equation 4: the mean magnitude of each input to the power alpha, around one.  (in_,)"""
    loudest = seen.abs_mean.max()
    if not loudest:
        return torch.ones_like(seen.abs_mean)
    # of the loudest, so that no power leaves float32
    scales = (seen.abs_mean / loudest).clamp_min(1e-4).pow(alpha)
    return scales / (scales.max() * scales.min()).sqrt()


def scaled_error(weight: torch.Tensor, scales: torch.Tensor, seen: Seen, how: AWQ) -> float:
    """|X W - (X / s) quant(s W)|^2 over the calibration data."""
    return output_error(rounded(weight * scales, how) / scales - weight, seen)


def output_error(missed: torch.Tensor, seen: Seen) -> float:
    """Squared error of the layer's outputs, summed over the calibration data: the trace of D G
    D^T.
    """
    return sum((part @ seen.gram).mul_(part).sum().item() for part in missed.split(ROWS_AT_ONCE))


def rounded(weight: torch.Tensor, how: AWQ) -> torch.Tensor:
    """The weight as plain rounding would give it back.  (out, in_)"""
    rounding = how.rounding()
    levels = Levels.of(rounding)
    parts = [
        dequantize(quantize(part, *p, levels), *p).flatten(1)
        for part in grouped(weight, rounding)
        for p in [choose_qparams(part, rounding)]
    ]
    return torch.cat(parts, dim=1)


@compress.register
def compress_awq(how: AWQ, weight: torch.Tensor, seen: Seen) -> Grid:
    if not how.clip:
        return stored_grid(weight, how.rounding())
    groups = [
        group.unsqueeze(1) for part in grouped(weight, how.rounding()) for group in part.unbind(1)
    ]
    edges = [0, *accumulate(group.shape[-1] for group in groups)]
    grams = [seen.gram[begin:end, begin:end] for begin, end in pairwise(edges)]
    params = [clipped(group, gram, how) for group, gram in zip(groups, grams, strict=True)]
    scales, zeros = (
        torch.cat([each.squeeze(-1) for each in column], dim=1)
        for column in zip(*params, strict=True)
    )
    return stored_codes(weight, how.rounding(), scales, zeros)


def clipped(group: torch.Tensor, gram: torch.Tensor, how: AWQ) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero of the range with the least output error that one group makes alone, for each
    row.  group: (out, 1, width)
    """
    rounding = how.rounding()
    levels, (low, high) = Levels.of(rounding), bounds(group, rounding)
    best, least = qparams_of(low, high, levels, rounding), torch.full_like(low, torch.inf)
    for shrink in torch.linspace(1, 0.5, CLIPS).tolist():
        tried = qparams_of(low * shrink, high * shrink, levels, rounding)
        missed = dequantize(quantize(group, *tried, levels), *tried) - group
        error = (missed @ gram).mul_(missed).sum(-1, keepdim=True)
        best = tuple(
            torch.where(error < least, new, old) for new, old in zip(tried, best, strict=True)
        )
        least = torch.minimum(error, least)
    return best


@blueprint.register
def blueprint_awq(how: AWQ, shape: tuple[int, int]) -> Grid:
    return blueprint(how.rounding(), shape)
