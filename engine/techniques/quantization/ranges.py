"""Range of a grid: up to the largest weight, or less, so that most weights get finer steps and a
few are clipped.
"""

import torch

from engine.techniques.quantization.scale_options import UniformGrid

BINS_A_LEVEL = 16  # bins of the histogram for the entropy range, as TensorRT's 2048 for 128 levels


def range_bounds(groups: torch.Tensor, config: UniformGrid) -> tuple[torch.Tensor, torch.Tensor]:
    """Lowest and highest value of the grid, at most and at least zero. (out, groups, width) ->
    (out, groups, 1) each
    """
    low, high = (
        groups.amin(-1, keepdim=True).clamp(max=0),
        groups.amax(-1, keepdim=True).clamp(min=0),
    )
    if config.scheme == "symmetric":
        high = torch.maximum(-low, high)
        low = -high
    match config.range:
        case "percentile":
            inner_low, inner_high = percentiles(groups, config)
        case "rms":
            inner_low, inner_high = clipped_range(
                low, high, config.rms_multiple * groups.square().mean(-1, keepdim=True).sqrt()
            )
        case "entropy":
            inner_low, inner_high = clipped_range(
                low, high, saturation_threshold(groups, 2 ** (config.bits - 1))
            )
        case _:
            return low, high
    empty = inner_low == inner_high  # most weights are zero: clipping would remove all others
    return torch.where(empty, low, inner_low), torch.where(empty, high, inner_high)


def clipped_range(
    low: torch.Tensor, high: torch.Tensor, reach: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Part of a range within ``reach`` of zero."""
    return torch.maximum(low, -reach), torch.minimum(high, reach)


def percentiles(groups: torch.Tensor, config: UniformGrid) -> tuple[torch.Tensor, torch.Tensor]:
    """Range that contains the given share of each group's weights, around zero."""
    share = config.percentile / 100
    if config.scheme == "symmetric":
        high = quantile(groups.abs(), share)
        return -high, high
    return quantile(groups, (1 - share) / 2).clamp(max=0), quantile(groups, (1 + share) / 2).clamp(
        min=0
    )


def quantile(groups: torch.Tensor, share: float) -> torch.Tensor:
    """Quantile of each group's weights with linear interpolation. ``torch.quantile`` is limited to
    16 million values.
    """
    position = share * (groups.shape[-1] - 1)
    below = groups.kthvalue(int(position) + 1, dim=-1, keepdim=True).values
    above = groups.kthvalue(min(int(position) + 2, groups.shape[-1]), dim=-1, keepdim=True).values
    return torch.lerp(below, above, position - int(position))


# --- the saturating range of TensorRT (Migacz 2017, 8-bit inference with TensorRT) ----------------


def saturation_threshold(groups: torch.Tensor, levels: int) -> torch.Tensor:
    """Threshold, of sixteen evenly spaced ones, at which the distribution of |w|, clipped and
    merged into the levels, is closest to the original.

    A group of fewer weights than bins has no distribution to speak of and keeps its widest.  (out,
    groups, width) -> (out, groups, 1)
    """
    largest, bins = groups.abs().amax(-1, keepdim=True), BINS_A_LEVEL * levels
    if groups.shape[-1] < bins:
        return largest
    counts = histograms(groups, largest, bins)
    divergences = torch.stack(
        [kl_divergences(counts, levels, merged) for merged in range(1, BINS_A_LEVEL + 1)]
    )
    return largest * (divergences.argmin(0).view(largest.shape) + 1) / BINS_A_LEVEL


def histograms(groups: torch.Tensor, largest: torch.Tensor, bins: int) -> torch.Tensor:
    """Histogram of each group's |w| from zero to its maximum, (out * groups, bins)."""
    bins_of_values = (
        (groups.abs() * (bins / largest.clamp_min(1e-30))).long().clamp_(max=bins - 1).flatten(0, 1)
    )
    first = torch.arange(len(bins_of_values), device=groups.device)[:, None] * bins
    return (
        (bins_of_values + first)
        .flatten()
        .bincount(minlength=len(bins_of_values) * bins)
        .view(-1, bins)
        .float()
    )


def kl_divergences(counts: torch.Tensor, levels: int, merged: int) -> torch.Tensor:
    """KL divergence of each histogram cut after ``levels * merged`` bins, ``merged`` bins a level,
    from itself with all beyond in its last bin.
    """
    head, beyond = counts[:, : levels * merged], counts[:, levels * merged :].sum(1)
    clipped = head.clone()
    clipped[:, -1] += beyond
    level, filled = head.unflatten(1, (levels, merged)), (head > 0).unflatten(1, (levels, merged))
    # a level's weights, spread over its bins that hold any
    even = (level.sum(-1) / filled.sum(-1).clamp_min(1)).unsqueeze(-1) * filled
    p = clipped / clipped.sum(1, keepdim=True)
    q = even.flatten(1) / even.sum((1, 2))[:, None].clamp_min(1)
    return torch.where(p > 0, p * (p.clamp_min(1e-30) / q.clamp_min(1e-9)).log(), 0).sum(1)
