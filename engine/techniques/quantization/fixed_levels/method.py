"""Formats that are a scale and a fixed table: three values or two (BitNet b1.58, XNOR-Net), powers
of two (LogNet), 4-bit floats (MXFP4).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from engine.techniques.hooks import blueprint, compress, sketch
from engine.techniques.quantization.fixed_levels.config import Logarithmic, Ternary
from engine.techniques.quantization.grid import as_stored, cut, grouped, storable
from engine.tensors.lookup_table import (
    E2M1,
    Tabled,
    bytes_of_codes,
    magnitudes,
    packed_codes,
    powers_of_two,
)

# (out, groups, width) -> (out, groups, 1) float32, as it will be stored
ScaleOf = Callable[[torch.Tensor], torch.Tensor]
CodesOf = Callable[[torch.Tensor], torch.Tensor]  # a weight relative to its scale -> uint8
MX_BLOCK = 32
MXFP4: dict[str, Any] = {"table": "e2m1", "bits": 4, "powers": True}


def tabled(
    weight: torch.Tensor,
    parts: list[torch.Tensor],
    scale_of: ScaleOf,
    codes_of: CodesOf,
    powers: bool = False,
    **format: Any,
) -> Tabled:
    """Scales of a weight's groups, then codes of what is left, packed; ``powers``: scales are
    powers of two.

    weight: (out, in_) float32, parts: (out, groups, width) each
    """
    scales = [scale_of(part) for part in parts]
    codes = torch.cat(
        [codes_of(part / scale).flatten(1) for part, scale in zip(parts, scales, strict=True)],
        dim=1,
    )
    together = torch.cat([scale.squeeze(-1) for scale in scales], dim=1)
    return Tabled(
        shape=tuple(weight.shape),
        group_size=min(parts[0].shape[-1], weight.shape[1]),
        codes=packed_codes(format["table"], codes, format["bits"]),
        scales=together.to(torch.float8_e8m0fnu) if powers else as_stored(together),
        **format,
    )


def sketched(
    shape: tuple[int, int], granularity: str, group_size: int, powers: bool = False, **format: Any
) -> Tabled:
    """Storage plan with float16 scales unless they are powers of two; weights that need float32
    scales take 2 bytes more per scale.
    """
    out, in_ = shape
    width = min(group_size, in_) if granularity == "group" else in_
    places = (1, 1) if granularity == "tensor" else (out, -(-in_ // width))
    codes = sketch(bytes_of_codes(format["table"], out * in_, format["bits"]), dtype=torch.uint8)
    scales = sketch(*places, dtype=torch.float8_e8m0fnu if powers else torch.float16)
    return Tabled(shape, group_size=width, codes=codes, scales=scales, **format)


# --- three values or two --------------------------------------------------------------------------


@compress.register
def compress_ternary(how: Ternary, weight: torch.Tensor) -> Tabled:
    return tabled(
        weight,
        grouped(weight, how),
        absmean,
        ternary_codes if how.values == "ternary" else binary_codes,
        **values_of(how),
    )


@blueprint.register
def blueprint_ternary(how: Ternary, shape: tuple[int, int]) -> Tabled:
    return sketched(shape, how.granularity, how.group_size, **values_of(how))


def values_of(how: Ternary) -> dict[str, Any]:
    return {"table": how.values, "bits": 2 if how.values == "ternary" else 1}


def absmean(groups: torch.Tensor) -> torch.Tensor:
    """Mean magnitude: BitNet b1.58, equation 3; the best scale for signs, XNOR-Net, equation 6."""
    return storable(groups.abs().mean(-1, keepdim=True))


def ternary_codes(relative: torch.Tensor) -> torch.Tensor:
    """BitNet b1.58, equation 1; 1 is zero. Weights of a group of zeros are no numbers here."""
    return relative.nan_to_num_(0).round_().clamp_(-1, 1).add_(1).to(torch.uint8)


def binary_codes(relative: torch.Tensor) -> torch.Tensor:
    return (relative >= 0).to(torch.uint8)


# --- powers of two --------------------------------------------------------------------------------


@compress.register
def compress_logarithmic(how: Logarithmic, weight: torch.Tensor) -> Tabled:
    reach = (
        widest
        if how.scales == "free"
        else partial(nearest_power, steps_per_octave=how.steps_per_octave)
    )
    return tabled(
        weight, grouped(weight, how), reach, partial(log_codes, how=how), **octaves_of(how)
    )


@blueprint.register
def blueprint_logarithmic(how: Logarithmic, shape: tuple[int, int]) -> Tabled:
    return sketched(shape, how.granularity, how.group_size, **octaves_of(how))


def octaves_of(how: Logarithmic) -> dict[str, Any]:
    return {
        "table": "powers-of-two",
        "bits": how.bits,
        "steps_per_octave": how.steps_per_octave,
        "powers": how.scales == "power-of-two",
    }


def widest(groups: torch.Tensor) -> torch.Tensor:
    scale = storable(groups.abs().amax(-1, keepdim=True))
    return torch.where(scale > 0, scale, 1.0)


def nearest_power(groups: torch.Tensor, steps_per_octave: int) -> torch.Tensor:
    """The least power of two that is at most half a step below the widest weight."""
    largest = groups.abs().amax(-1, keepdim=True)
    return powers_of_two(
        torch.where(largest > 0, (largest.log2() - 0.5 / steps_per_octave).ceil(), 0.0)
    ).float()


def log_codes(relative: torch.Tensor, how: Logarithmic) -> torch.Tensor:
    """The nearest power (LogNet, equation 3), or zero for what is nearer to that than to the least
    power.
    """
    number = magnitudes(how.bits)
    size = relative.abs()
    down = size.log2().mul_(-how.steps_per_octave).round_().clamp_(0, number - 1)
    least = 2.0 ** (-(number - 1) / how.steps_per_octave)
    places = relative.sign().mul_(number - down).masked_fill_(size < least / 2, 0)
    return places.add_(number).to(torch.uint8)


# --- 4-bit floats ---------------------------------------------------------------------------------


def mxfp4(weight: torch.Tensor) -> Tabled:
    """OCP Microscaling Formats 1.0, section 6.3; the last block of a row may be shorter."""
    return tabled(
        weight, cut(weight, min(MX_BLOCK, weight.shape[1])), shared_scale, e2m1_codes, **MXFP4
    )


def mxfp4_sketch(shape: tuple[int, int]) -> Tabled:
    return sketched(shape, "group", MX_BLOCK, **MXFP4)


def shared_scale(groups: torch.Tensor) -> torch.Tensor:
    """The largest power of two in the widest weight, over the largest one in the format (4); 1 for
    zeros.
    """
    largest = groups.abs().amax(-1, keepdim=True)
    exponents = largest.frexp().exponent - 1 - 2
    return powers_of_two(torch.where(largest > 0, exponents, 0)).float()


def e2m1_codes(relative: torch.Tensor) -> torch.Tensor:
    """The nearest of E2M1, of two equally near the one with an even mantissa; beyond 6 is 6."""
    size = relative.abs()
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    nearest = size.div(step).round_().mul_(step).clamp_(max=E2M1[-1])
    code = torch.searchsorted(torch.tensor(E2M1, device=relative.device), nearest.contiguous())
    return (code + 8 * relative.signbit()).to(torch.uint8)
