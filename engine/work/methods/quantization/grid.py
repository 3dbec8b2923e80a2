"""Even grids as plain tensor functions: choose a scale and a zero point for each group, quantize, store.

A group is the last axis of (out, groups, width). Symmetric grids have levels -2^(b-1) ... 2^(b-1)-1 with
scale = absmax / (2^(b-1) - 1/2), so that both ends are at most half a step away (Jacob et al. 2018, arXiv:1712.05877,
with the half step of today's file formats); the narrow grid drops the lowest level.
"""

from dataclasses import dataclass

import torch

from engine.catalog.quantization import RoundToNearest
from engine.work.stored.packing import packed
from engine.work.stored.weights import Grid

SHRINKS = 40  # ranges tried by least squares, from the full one down to 30 %


@dataclass(frozen=True)
class Levels:
    """The codes of a grid, with zero among them."""

    lowest: int
    highest: int
    reach: float  # steps from zero to the end of the range (symmetric), or steps in the range (asymmetric)

    @classmethod
    def of(cls, how: RoundToNearest) -> "Levels":
        half = 2 ** (how.bits - 1)
        if how.scheme == "asymmetric":
            return cls(0, 2 * half - 1, 2 * half - 1)
        return cls(-half, half - 1, half - 0.5) if how.grid == "full" else cls(1 - half, half - 1, half - 1)


def choose_qparams(groups: torch.Tensor, how: RoundToNearest) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero code of each group, both (out, groups, 1). Zero always maps to zero."""
    levels = Levels.of(how)
    low, high = bounds(groups, how)
    if how.range != "mse":
        return qparams_of(low, high, levels, how)
    best, error = qparams_of(low, high, levels, how), torch.full_like(low, torch.inf)
    for shrink in torch.linspace(1.0, 0.3, SHRINKS).tolist():
        tried = qparams_of(low * shrink, high * shrink, levels, how)
        missed = (dequantize(quantize(groups, *tried, levels), *tried) - groups).square_().sum(-1, keepdim=True)
        better = missed < error
        best = tuple(torch.where(better, new, old) for new, old in zip(tried, best, strict=True))
        error = torch.where(better, missed, error)
    return best


def bounds(groups: torch.Tensor, how: RoundToNearest) -> tuple[torch.Tensor, torch.Tensor]:
    """Lowest and highest value the grid should reach, at most and at least zero."""
    if how.range == "percentile" and how.percentile < 100:
        share = how.percentile / 100
        if how.scheme == "symmetric":
            high = quantile(groups.abs(), share)
            return -high, high
        return quantile(groups, (1 - share) / 2).clamp(max=0), quantile(groups, (1 + share) / 2).clamp(min=0)
    low, high = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True).clamp(min=0)
    if how.scheme == "symmetric":
        high = torch.maximum(-low, high)
        return -high, high
    return low, high


def quantile(groups: torch.Tensor, share: float) -> torch.Tensor:
    """The value that a share of each group's weights stays below, between neighbours in proportion.

    ``torch.quantile`` refuses more than 16 million values.
    """
    place = share * (groups.shape[-1] - 1)
    below = groups.kthvalue(int(place) + 1, dim=-1, keepdim=True).values
    above = groups.kthvalue(min(int(place) + 2, groups.shape[-1]), dim=-1, keepdim=True).values
    return torch.lerp(below, above, place - int(place))


def qparams_of(low: torch.Tensor, high: torch.Tensor, levels: Levels, how: RoundToNearest) -> tuple[torch.Tensor, torch.Tensor]:
    width = high if how.scheme == "symmetric" else high - low
    scale = storable(width / levels.reach)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # a group of zeros: any scale gives zeros
    zero = torch.zeros_like(scale) if how.scheme == "symmetric" else (-low / scale).round().clamp(levels.lowest, levels.highest)
    return scale, zero


def storable(scale: torch.Tensor) -> torch.Tensor:
    """Scales as float16 will give them back, so that codes are chosen for the grid that is stored."""
    half = scale.half().float()
    return half if fits_half(scale) else scale


def fits_half(scale: torch.Tensor) -> bool:
    """Whether float16 holds these scales to three digits; very small or large ones need float32."""
    return torch.allclose(scale.half().float(), scale.float(), rtol=2**-10, atol=0)


def quantize(groups: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, levels: Levels) -> torch.Tensor:
    return groups.div(scale).round_().add_(zero).clamp_(levels.lowest, levels.highest)


def dequantize(codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    return codes.sub(zero).mul_(scale)


def grouped(weight: torch.Tensor, how: RoundToNearest) -> list[torch.Tensor]:
    """The weight cut into groups that share a scale: whole ones, and the shorter last group of each row if there is one.

    (out, in_) -> (out, groups, width) each
    """
    out, in_ = weight.shape
    if how.granularity == "tensor":
        return [weight.reshape(1, 1, -1)]
    size = in_ if how.granularity == "channel" else min(how.group_size, in_)
    whole = in_ // size * size
    parts = [weight[:, :whole].reshape(out, -1, size)]
    return parts + ([weight[:, whole:].unsqueeze(1)] if whole < in_ else [])


def stored_grid(weight: torch.Tensor, how: RoundToNearest) -> Grid:
    """Rounded to nearest and packed.  weight: (out, in_) float32"""
    levels, parts = Levels.of(how), grouped(weight, how)
    params = [choose_qparams(part, how) for part in parts]
    codes = [quantize(part, *p, levels).reshape(len(part), -1) for part, p in zip(parts, params, strict=True)]
    offset = 0 if how.scheme == "asymmetric" else 2 ** (how.bits - 1)
    whole = torch.cat(codes, dim=1).view(weight.shape).add_(offset).to(torch.uint8)
    scales = torch.cat([scale.squeeze(-1) for scale, _ in params], dim=1)
    zeros = packed(torch.cat([zero.squeeze(-1) for _, zero in params], dim=1).to(torch.uint8), how.bits)
    return Grid(
        shape=tuple(weight.shape), bits=how.bits, group_size=min(how.group_size, weight.shape[1]), codes=packed(whole, how.bits),
        scales=scales.half() if fits_half(scales) else scales, zeros=zeros if how.scheme == "asymmetric" else None,
    )  # fmt: skip
