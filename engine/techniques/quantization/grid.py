"""Uniform grids as tensor functions: choose a scale and zero point per group, quantize, store.

A group is the last axis of (out, groups, width). Symmetric grids have levels -2^(b-1) ... 2^(b-1)-1
with scale = absmax / (2^(b-1) - 1/2), so that both ends are at most half a step away (Jacob et al.
2018, arXiv:1712.05877, with the half step of current file formats); the narrow grid omits the
lowest level. A largest weight that is negative then lies exactly between the two lowest levels, so
the scale is rounded down to float16, which always selects the outer level.
"""

from dataclasses import dataclass

import torch

from engine.techniques.quantization.ranges import range_bounds
from engine.techniques.quantization.scale_options import ScaledFormat, UniformGrid
from engine.tensors.lookup_table import powers_of_two
from engine.tensors.packing import pack_bits
from engine.tensors.weights import IntegerWeight

SHRINKS = 40  # number of ranges for least squares, from the full one down to 30%
ROWS_AT_ONCE = 256  # limits memory, and fits into the processor's cache
VALUES_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Levels:
    """Codes of a grid that contains zero."""

    lowest: int
    highest: int
    # steps from zero to the end of the range (symmetric), or steps in the range (asymmetric)
    range_steps: float

    @classmethod
    def of(cls, config: UniformGrid) -> "Levels":
        half = 2 ** (config.bits - 1)
        if config.scheme == "asymmetric":
            return cls(0, 2 * half - 1, 2 * half - 1)
        return (
            cls(-half, half - 1, half - 0.5)
            if config.grid == "full"
            else cls(1 - half, half - 1, half - 1)
        )


def choose_qparams(groups: torch.Tensor, config: UniformGrid) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero code of each group, both (out, groups, 1). Zero always maps to zero."""
    levels = Levels.of(config)
    low, high = range_bounds(groups, config)
    if config.range != "mse":
        return qparams_of(low, high, levels, config)
    best, error = qparams_of(low, high, levels, config), torch.full_like(low, torch.inf)
    for shrink in torch.linspace(1.0, 0.3, SHRINKS).tolist():
        tried = qparams_of(low * shrink, high * shrink, levels, config)
        new_error = squared_error(groups, *tried, levels)
        is_better = new_error < error
        best = tuple(torch.where(is_better, new, old) for new, old in zip(tried, best, strict=True))
        error = torch.where(is_better, new_error, error)
    return best


def squared_error(
    groups: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, levels: Levels
) -> torch.Tensor:
    """Squared error of each group, (out, groups, 1); very wide groups are processed in pieces."""
    parts = groups.split(VALUES_AT_ONCE, dim=-1)
    return sum(
        (dequantize(quantize(part, scale, zero, levels), scale, zero) - part)
        .square_()
        .sum(-1, keepdim=True)
        for part in parts
    )


def qparams_of(
    low: torch.Tensor, high: torch.Tensor, levels: Levels, config: UniformGrid
) -> tuple[torch.Tensor, torch.Tensor]:
    width = high if config.scheme == "symmetric" else high - low
    scale = width / levels.range_steps
    scale = stored_scale(scale, config)
    # a group of zeros: any scale gives zeros
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = (
        torch.zeros_like(scale)
        if config.scheme == "symmetric"
        else (-low / scale).round().clamp(levels.lowest, levels.highest)
    )
    return scale, zero


def stored_scale(scale: torch.Tensor, config: UniformGrid) -> torch.Tensor:
    """Scale after storing, so that codes are chosen for the stored grid."""
    if config.widest_is_a_tie:
        return float16_below(scale)
    return nearest_float16(scale) if config.scales == "free" else next_power_of_two(scale)


def next_power_of_two(scale: torch.Tensor) -> torch.Tensor:
    """Smallest fixed-point number that is not smaller than the scale, so that the whole
    range fits.
    """
    mantissa, exponent = scale.frexp()  # mantissa from 1/2 up to 1
    return powers_of_two(exponent - (mantissa == 0.5).int()).float()


def nearest_float16(scale: torch.Tensor) -> torch.Tensor:
    """Scales after storing in float16, so that codes are chosen for the stored grid. Scales that
    float16 represents with less than three digits, because they are very small or large, are
    unchanged.
    """
    half = scale.half().float()
    return torch.where((half - scale).abs() <= scale * 2**-10, half, scale)


def float16_below(scale: torch.Tensor) -> torch.Tensor:
    """Largest float16 numbers that do not exceed the scales; very small or large scales are
    unchanged. Rounding to nearest would choose the side of a tie arbitrarily.
    """
    nearest = scale.half()
    below = torch.where(
        nearest.float() > scale, torch.nextafter(nearest, torch.zeros_like(nearest)), nearest
    ).float()
    holds = nearest.isfinite() & ((below - scale).abs() <= scale * 2**-10)
    return torch.where(holds, below, scale)


def packed_scales(scales: torch.Tensor, config: UniformGrid) -> torch.Tensor:
    return compact_scales(scales) if config.scales == "free" else scales.to(torch.float8_e8m0fnu)


def compact_scales(scales: torch.Tensor) -> torch.Tensor:
    """Scales in float16 if it represents all of them, otherwise in float32."""
    half = scales.half()
    return half if torch.equal(half.float(), scales) else scales


def quantize(
    groups: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, levels: Levels
) -> torch.Tensor:
    return groups.div(scale).round_().add_(zero).clamp_(levels.lowest, levels.highest)


def dequantize(codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    return codes.sub(zero).mul_(scale)


def group_width(config: UniformGrid | ScaledFormat, in_: int) -> int:
    """Columns that share a scale."""
    widths = {
        "group": config.group_size,
        "input-channel": 1,
        "block": getattr(config, "block_columns", 0),
    }
    return min(widths.get(config.granularity, in_), in_)


def shared_rows(config: UniformGrid, out: int) -> int | None:
    """Rows that share a scale in a block-wise grid."""
    return {"input-channel": out, "block": min(config.block_rows, out)}.get(config.granularity)


def scale_groups(weight: torch.Tensor, config: UniformGrid | ScaledFormat) -> list[torch.Tensor]:
    """Groups of the weight that share a scale: full ones, and the shorter last group of each row if
    there is one. (out, in_) -> (out, groups, width) each
    """
    return (
        [weight.reshape(1, 1, -1)]
        if config.granularity == "tensor"
        else column_groups(weight, group_width(config, weight.shape[1]))
    )


def column_groups(weight: torch.Tensor, width: int) -> list[torch.Tensor]:
    out, in_ = weight.shape
    edge = in_ // width * width
    parts = [weight[:, :edge].reshape(out, -1, width)]
    return parts + ([weight[:, edge:].unsqueeze(1)] if edge < in_ else [])


def round_to_grid(weight: torch.Tensor, config: UniformGrid) -> IntegerWeight:
    """Weight rounded to nearest and packed. weight: (out, in_) float32"""
    return quantize_to_grid(weight, config, *qparams_of_weight(weight, config))


def qparams_of_weight(
    weight: torch.Tensor, config: UniformGrid
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero codes, (out, groups) each, (bands, blocks), or (1, 1) for the whole tensor.
    Rows are processed in chunks.
    """
    rows = shared_rows(config, len(weight))
    pieces = (
        scale_blocks(weight, rows, group_width(config, weight.shape[1]))
        if rows
        else [scale_groups(piece, config) for piece in row_chunks(weight, config)]
    )
    params = [[choose_qparams(part, config) for part in piece] for piece in pieces]
    return tuple(
        torch.cat(
            [
                torch.cat([params_of_part[kind].squeeze(-1) for params_of_part in row], dim=1)
                for row in params
            ]
        )
        for kind in (0, 1)
    )


def scale_blocks(weight: torch.Tensor, rows: int, columns: int) -> list[list[torch.Tensor]]:
    """Blocks of the weight, each as a group: some bands of rows at a time, then the lower last one
    if there is one. (out, in_) -> (bands, blocks, rows * columns) each
    """
    full_rows = len(weight) // rows * rows
    bands = [
        *weight[:full_rows].unflatten(0, (-1, rows)).split(max(1, ROWS_AT_ONCE // rows)),
        weight[full_rows:].unsqueeze(0),
    ]
    return [blocks_across(band, columns) for band in bands if band.numel()]


def blocks_across(bands: torch.Tensor, columns: int) -> list[torch.Tensor]:
    """Full blocks of bands of rows, then the narrower last ones. (bands, rows, in_) -> (bands,
    blocks, rows * columns) each
    """
    edge = bands.shape[2] // columns * columns
    parts = [
        bands[..., :edge].unflatten(2, (-1, columns)).transpose(1, 2).flatten(2),
        bands[..., edge:].flatten(1).unsqueeze(1),
    ]
    return [part for part in parts if part.numel()]


def quantize_to_grid(
    weight: torch.Tensor, config: UniformGrid, scales: torch.Tensor, zeros: torch.Tensor
) -> IntegerWeight:
    """Nearest codes on a given grid, packed."""
    rows = shared_rows(config, len(weight))
    spread = [
        params.repeat_interleave(rows, 0)[: len(weight)] if rows else params
        for params in (scales, zeros)
    ]
    pieces = zip(*(row_chunks(tensor, config) for tensor in (weight, *spread)), strict=True)
    return IntegerWeight(
        shape=tuple(weight.shape),
        bits=config.bits,
        group_size=group_width(config, weight.shape[1]),
        codes=torch.cat([pack_bits(grid_codes(*piece, config), config.bits) for piece in pieces]),
        scales=packed_scales(scales, config),
        zeros=pack_bits(zeros.to(torch.uint8), config.bits)
        if config.scheme == "asymmetric"
        else None,
        rows=rows,
    )


def row_chunks(values: torch.Tensor, config: UniformGrid) -> tuple[torch.Tensor, ...]:
    """Chunks of rows; a single chunk if all rows share a scale."""
    return (values,) if config.granularity == "tensor" else values.split(ROWS_AT_ONCE)


def grid_codes(
    weight: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, config: UniformGrid
) -> torch.Tensor:
    """Stored codes, uint8.  (rows, in_)"""
    levels, first = Levels.of(config), 0
    codes = []
    for part in scale_groups(weight, config):
        columns = slice(first, first := first + part.shape[1])
        codes.append(
            unsigned_codes(
                quantize(part, scales[:, columns, None], zeros[:, columns, None], levels), config
            ).flatten(1)
        )
    return torch.cat(codes, dim=1)


def unsigned_codes(codes: torch.Tensor, config: UniformGrid) -> torch.Tensor:
    """Codes as stored, uint8: those of a symmetric grid are shifted by half the levels."""
    return (codes if config.scheme == "asymmetric" else codes.add_(2 ** (config.bits - 1))).to(
        torch.uint8
    )
