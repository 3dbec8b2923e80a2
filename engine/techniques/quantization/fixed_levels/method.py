"""Formats with a scale and a fixed table: ternary or binary (BitNet b1.58, XNOR-Net), powers of two
(LogNet), 4-bit floats (MXFP4).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from engine.techniques.hooks import compress, meta_tensor, storage_plan
from engine.techniques.quantization.fixed_levels.config import Logarithmic, Ternary
from engine.techniques.quantization.grid import (
    column_groups,
    compact_scales,
    nearest_float16,
    scale_groups,
)
from engine.tensors.lookup_table import (
    E2M1,
    LookupTableWeight,
    magnitude_count,
    pack_table_codes,
    powers_of_two,
    table_codes_bytes,
)

# (out, groups, width) -> (out, groups, 1) float32, as stored
ScaleOf = Callable[[torch.Tensor], torch.Tensor]
CodesOf = Callable[[torch.Tensor], torch.Tensor]  # weight relative to its scale -> uint8
MX_BLOCK = 32
MXFP4: dict[str, Any] = {"table": "e2m1", "bits": 4, "powers": True}


def lookup_table_weight(
    weight: torch.Tensor,
    parts: list[torch.Tensor],
    scale_of: ScaleOf,
    codes_of: CodesOf,
    powers: bool = False,
    **format: Any,
) -> LookupTableWeight:
    """Compute the scales of a weight's groups, then the codes of the scaled weights, packed.
    ``powers``: scales are powers of two. weight: (out, in_) float32, parts: (out, groups, width)
    each
    """
    scales = [scale_of(part) for part in parts]
    codes = torch.cat(
        [codes_of(part / scale).flatten(1) for part, scale in zip(parts, scales, strict=True)],
        dim=1,
    )
    scales_2d = torch.cat([scale.squeeze(-1) for scale in scales], dim=1)
    return LookupTableWeight(
        shape=tuple(weight.shape),
        group_size=min(parts[0].shape[-1], weight.shape[1]),
        codes=pack_table_codes(format["table"], codes, format["bits"]),
        scales=scales_2d.to(torch.float8_e8m0fnu) if powers else compact_scales(scales_2d),
        **format,
    )


def lookup_table_plan(
    shape: tuple[int, int], granularity: str, group_size: int, powers: bool = False, **format: Any
) -> LookupTableWeight:
    """Storage plan with float16 scales unless they are powers of two; weights that need float32
    scales take 2 bytes more per scale.
    """
    out, in_ = shape
    width = min(group_size, in_) if granularity == "group" else in_
    scale_shape = (1, 1) if granularity == "tensor" else (out, -(-in_ // width))
    codes = meta_tensor(
        table_codes_bytes(format["table"], out * in_, format["bits"]), dtype=torch.uint8
    )
    scales = meta_tensor(*scale_shape, dtype=torch.float8_e8m0fnu if powers else torch.float16)
    return LookupTableWeight(shape, group_size=width, codes=codes, scales=scales, **format)


# --- three values or two --------------------------------------------------------------------------


@compress.register
def compress_ternary(config: Ternary, weight: torch.Tensor) -> LookupTableWeight:
    return lookup_table_weight(
        weight,
        scale_groups(weight, config),
        absmean,
        ternary_codes if config.values == "ternary" else binary_codes,
        **table_format(config),
    )


@storage_plan.register
def storage_plan_ternary(config: Ternary, shape: tuple[int, int]) -> LookupTableWeight:
    return lookup_table_plan(shape, config.granularity, config.group_size, **table_format(config))


def table_format(config: Ternary) -> dict[str, Any]:
    return {"table": config.values, "bits": 2 if config.values == "ternary" else 1}


def absmean(groups: torch.Tensor) -> torch.Tensor:
    """Mean magnitude: equation 3 of BitNet b1.58, and the optimal scale for signs, equation 6 of
    XNOR-Net.
    """
    return nearest_float16(groups.abs().mean(-1, keepdim=True))


def ternary_codes(relative: torch.Tensor) -> torch.Tensor:
    """Codes by BitNet b1.58, equation 1; code 1 is zero. Weights of an all-zero group are
    NaN here.
    """
    return relative.nan_to_num_(0).round_().clamp_(-1, 1).add_(1).to(torch.uint8)


def binary_codes(relative: torch.Tensor) -> torch.Tensor:
    return (relative >= 0).to(torch.uint8)


# --- powers of two --------------------------------------------------------------------------------


@compress.register
def compress_logarithmic(config: Logarithmic, weight: torch.Tensor) -> LookupTableWeight:
    reach = (
        largest_magnitude
        if config.scales == "free"
        else partial(nearest_power, steps_per_octave=config.steps_per_octave)
    )
    return lookup_table_weight(
        weight,
        scale_groups(weight, config),
        reach,
        partial(log_codes, config=config),
        **log_format(config),
    )


@storage_plan.register
def storage_plan_logarithmic(config: Logarithmic, shape: tuple[int, int]) -> LookupTableWeight:
    return lookup_table_plan(shape, config.granularity, config.group_size, **log_format(config))


def log_format(config: Logarithmic) -> dict[str, Any]:
    return {
        "table": "powers-of-two",
        "bits": config.bits,
        "steps_per_octave": config.steps_per_octave,
        "powers": config.scales == "power-of-two",
    }


def largest_magnitude(groups: torch.Tensor) -> torch.Tensor:
    scale = nearest_float16(groups.abs().amax(-1, keepdim=True))
    return torch.where(scale > 0, scale, 1.0)


def nearest_power(groups: torch.Tensor, steps_per_octave: int) -> torch.Tensor:
    """The smallest power of two that is at most half a step below the largest weight."""
    largest = groups.abs().amax(-1, keepdim=True)
    return powers_of_two(
        torch.where(largest > 0, (largest.log2() - 0.5 / steps_per_octave).ceil(), 0.0)
    ).float()


def log_codes(relative: torch.Tensor, config: Logarithmic) -> torch.Tensor:
    """The nearest power of two (LogNet, equation 3), or zero for weights that are closer to zero
    than to the smallest power.
    """
    number = magnitude_count(config.bits)
    size = relative.abs()
    down = size.log2().mul_(-config.steps_per_octave).round_().clamp_(0, number - 1)
    smallest = 2.0 ** (-(number - 1) / config.steps_per_octave)
    codes = relative.sign().mul_(number - down).masked_fill_(size < smallest / 2, 0)
    return codes.add_(number).to(torch.uint8)


# --- 4-bit floats ---------------------------------------------------------------------------------


def mxfp4_weight(weight: torch.Tensor) -> LookupTableWeight:
    """OCP Microscaling Formats 1.0, section 6.3; the last block of a row may be shorter."""
    return lookup_table_weight(
        weight,
        column_groups(weight, min(MX_BLOCK, weight.shape[1])),
        shared_scale,
        e2m1_codes,
        **MXFP4,
    )


def mxfp4_plan(shape: tuple[int, int]) -> LookupTableWeight:
    return lookup_table_plan(shape, "group", MX_BLOCK, **MXFP4)


def shared_scale(groups: torch.Tensor) -> torch.Tensor:
    """Exponent of the largest weight minus the largest exponent of the format (4), as a power of
    two; 1 for zeros.
    """
    largest = groups.abs().amax(-1, keepdim=True)
    exponents = largest.frexp().exponent - 1 - 2
    return powers_of_two(torch.where(largest > 0, exponents, 0)).float()


def e2m1_codes(relative: torch.Tensor) -> torch.Tensor:
    """Nearest E2M1 value, ties to an even mantissa; values above 6 become 6."""
    size = relative.abs()
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    nearest = size.div(step).round_().mul_(step).clamp_(max=E2M1[-1])
    code = torch.searchsorted(torch.tensor(E2M1, device=relative.device), nearest.contiguous())
    return (code + 8 * relative.signbit()).to(torch.uint8)
