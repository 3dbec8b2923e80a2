"""Ranges of activations from calibration data."""

import torch

from engine.calibration.activation_stats import InputStats
from engine.results.schema.tables import ObserverRow
from engine.techniques.hooks import range_rows
from engine.techniques.quantization.activations.config import Activations
from engine.tensors.activations import code_range, qparams

MOVING_AVERAGE_WEIGHT = 0.01  # weight of a new batch in the moving average, as in torch.ao
SHRINKS = 80
BINS = 2048
# of a step: so far a value inside the range may lie from the nearest code, which numbers with few
# digits overstate
HALF = 0.5 + 1e-4


def observed_range(stats: InputStats, config: Activations) -> tuple[float, float]:
    """Lowest and highest value of the range that the observer chooses."""
    return OBSERVERS[config.observer](stats, config)


def extremes(stats: InputStats, config: Activations) -> tuple[float, float]:
    lows, highs = zip(*stats.extremes, strict=True)
    return min(lows), max(highs)


def running_mean(stats: InputStats, config: Activations) -> tuple[float, float]:
    """Exponential moving average of each batch's extremes (Jacob et al. 2018, section 3.1)."""
    low, high = stats.extremes[0]
    for new_low, new_high in stats.extremes[1:]:
        low, high = (
            low + MOVING_AVERAGE_WEIGHT * (new_low - low),
            high + MOVING_AVERAGE_WEIGHT * (new_high - high),
        )
    return low, high


def percentile(stats: InputStats, config: Activations) -> tuple[float, float]:
    values, share = stats.sample(), config.percentile / 100
    if config.scheme == "symmetric":
        high = torch.quantile(values.abs(), share).item()
        return -high, high
    return torch.quantile(values, (1 - share) / 2).item(), torch.quantile(
        values, (1 + share) / 2
    ).item()


def least_squares(stats: InputStats, config: Activations) -> tuple[float, float]:
    """Range with the least squared error among uniformly shrunk ones."""
    low, high = extremes(stats, config)
    values = stats.sample()

    def squared_error(shrink: float) -> float:
        return rounding_and_clipping(values, low * shrink, high * shrink, config)[0]

    best = min(torch.linspace(1, 0.05, SHRINKS).tolist(), key=squared_error)
    return low * best, high * best


def rounding_and_clipping(
    values: torch.Tensor, low: float, high: float, config: Activations
) -> tuple[float, float, float]:
    """Mean squared error of a range and its two parts: of values inside it (rounding) and outside
    (clipping).
    """
    scale, zero = qparams(
        *torch.tensor([low, high], dtype=values.dtype), config.activation_bits, config.scheme
    )
    lowest, highest = code_range(config.activation_bits, config.scheme)
    codes = values / scale + zero
    is_inside = (codes >= lowest - HALF) & (codes <= highest + HALF)
    error = ((codes.round().clamp(lowest, highest) - zero) * scale - values).square()
    return (
        error.mean().item(),
        (error * is_inside).mean().item(),
        (error * ~is_inside).mean().item(),
    )


def least_kl_divergence(stats: InputStats, config: Activations) -> tuple[float, float]:
    """The saturating range of TensorRT (Migacz 2017): the threshold whose quantized histogram is
    nearest (KL) to the clipped one.
    """
    low, high = extremes(stats, config)
    reach = max(-low, high, 1e-30)
    counts = torch.histc(stats.sample().abs(), BINS, 0, reach)
    levels = code_range(config.activation_bits, "symmetric")[1] + 1
    kept = min(
        range(levels, BINS + 1, max(1, BINS // 256)),
        key=lambda bins: kl_divergence(counts, bins, levels),
        default=BINS,
    )
    threshold = reach * kept / BINS
    return max(low, -threshold), min(high, threshold)


def kl_divergence(counts: torch.Tensor, kept: int, levels: int) -> float:
    """KL divergence of the first ``kept`` bins, merged to ``levels``, from what they hold when all
    beyond is clipped onto the last.
    """
    clipped = counts[:kept].clone()
    clipped[-1] += counts[kept:].sum()
    level = torch.arange(kept) * levels // kept
    filled = (counts[:kept] > 0).float()
    total = torch.zeros(levels).index_add_(0, level, counts[:kept])
    bins = torch.zeros(levels).index_add_(0, level, filled).clamp_min(1)
    merged = (total / bins)[level] * filled
    p, q = clipped / clipped.sum(), merged / merged.sum().clamp_min(1e-30)
    return (p[p > 0] * (p[p > 0] / q[p > 0].clamp_min(1e-9)).log()).sum().item()


OBSERVERS = {
    "min-max": extremes,
    "moving-average": running_mean,
    "percentile": percentile,
    "mse": least_squares,
    "entropy": least_kl_divergence,
}


@range_rows.register
def range_rows_activations(config: Activations, layer: str, stats: InputStats) -> list[ObserverRow]:
    return observer_rows(layer, stats, config)


def observer_rows(layer: str, stats: InputStats, config: Activations) -> list[ObserverRow]:
    """Range and error of each observer for the same inputs, in float64 so that both parts of the
    error add up.
    """
    values = stats.sample().double()
    return [
        observer_row(layer, name, values, OBSERVERS[name](stats, config), config)
        for name in OBSERVERS
    ]


def observer_row(
    layer: str,
    observer: str,
    values: torch.Tensor,
    chosen: tuple[float, float],
    config: Activations,
) -> ObserverRow:
    scale, zero = qparams(
        *torch.tensor(chosen, dtype=values.dtype), config.activation_bits, config.scheme
    )
    low, high = (
        ((code - zero) * scale).item() for code in code_range(config.activation_bits, config.scheme)
    )
    _, rounding, clipping = rounding_and_clipping(values, *chosen, config)
    power = max(values.square().mean().item(), 1e-30)
    outside_share = (
        ((values < low - HALF * scale) | (values > high + HALF * scale)).double().mean().item()
    )
    return ObserverRow(
        layer,
        observer,
        low,
        high,
        rounding / power,
        clipping / power,
        outside_share,
        observer == config.observer,
    )
