"""HQQ (Badri & Shaji 2023): the zero point of each group by half-quadratic splitting, with the
scale of plain rounding.

The loop is that of the hqq package's default solver: the exponent and beta are fixed, and it ends
when the mean error of the whole layer stops decreasing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from engine.techniques.hooks import compress, meta_tensor, storage_plan
from engine.techniques.quantization.grid import (
    ROWS_AT_ONCE,
    Levels,
    compact_scales,
    group_width,
    nearest_float16,
    scale_groups,
)
from engine.techniques.quantization.hqq.config import HQQ
from engine.tensors.packing import pack_bits
from engine.tensors.weights import IntegerWeight, StoredWeight, TransposedWeight

EXPONENT = 0.7  # exponent of the minimized norm
BETA = 10.0
ITERATIONS = 20
# of a step: how far a stored zero point may be off; codes are chosen for the stored one, so little
# is lost
COARSEST = 1 / 2


@dataclass
class GroupState:
    """State of some groups of one width. values: (rows, groups, width); scale, zero: (rows, groups,
    1)
    """

    values: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor

    @classmethod
    def of(cls, values: torch.Tensor, levels: Levels) -> "GroupState":
        low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
        scale = nearest_float16((high - low) / levels.range_steps)
        # all weights are equal: code 0 and the zero point represent them
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return cls(values, scale, -low / scale)

    def update_zeros(self, levels: Levels) -> float:
        """Update the zero points once, and return the sum of absolute errors before."""
        codes = fractional_codes(self.values, self.scale, self.zero, levels)
        residual = self.values - (codes - self.zero) * self.scale
        explained = self.values - outlier_part(residual)
        self.zero = codes.sub_(explained.div_(self.scale)).mean(-1, keepdim=True)
        return residual.abs_().sum(dtype=torch.float64).item()


def outlier_part(residual: torch.Tensor) -> torch.Tensor:
    """Proximal operator of the norm: sign(x) * relu(|x| - |x|^(p-1) / beta), the outlier part of an
    error.
    """
    size = residual.abs()
    return size.sub_(size.pow(EXPONENT - 1).div_(BETA)).clamp_min_(0).mul_(residual.sign())


def fractional_codes(
    values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, levels: Levels
) -> torch.Tensor:
    """Nearest codes for fractional zero points."""
    return values.div(scale).add_(zero).round_().clamp_(levels.lowest, levels.highest)


def optimized_groups(config: HQQ, weight: torch.Tensor) -> list[list[GroupState]]:
    """Quantize some rows at a time, in groups of each width with their optimal zero points. weight:
    (out, in_)
    """
    levels = Levels.of(config.rounding())
    pieces = [
        [GroupState.of(part, levels) for part in scale_groups(rows, config.rounding())]
        for rows in weight.split(ROWS_AT_ONCE)
    ]
    smallest_error = float("inf")
    for _ in range(ITERATIONS):
        error = sum(groups.update_zeros(levels) for groups in all_groups(pieces))
        if not error < smallest_error:
            break
        smallest_error = error
    return pieces


def all_groups(pieces: list[list[GroupState]]) -> Iterator[GroupState]:
    return (groups for piece in pieces for groups in piece)


def zeros_fit(zeros: torch.Tensor) -> bool:
    """Return True if float16 represents the zero points closely enough."""
    return bool(((zeros.half().float() - zeros).abs() <= COARSEST).all())


@compress.register
def compress_hqq(config: HQQ, weight: torch.Tensor) -> StoredWeight:
    if config.axis == "column":
        return TransposedWeight(tuple(weight.shape), hqq_weight(config, weight.T.contiguous()))
    return hqq_weight(config, weight)


def hqq_weight(config: HQQ, weight: torch.Tensor) -> IntegerWeight:
    """Choose codes again for the stored zero points."""
    pieces, levels = optimized_groups(config, weight), Levels.of(config.rounding())
    scales, zeros = (
        torch.cat(
            [torch.cat([getattr(g, kind).squeeze(-1) for g in piece], dim=1) for piece in pieces]
        )
        for kind in ("scale", "zero")
    )
    dtype = torch.float16 if zeros_fit(zeros) else torch.float32
    rows = [
        [
            fractional_codes(g.values, g.scale, g.zero.to(dtype).float(), levels).flatten(1)
            for g in piece
        ]
        for piece in pieces
    ]
    return IntegerWeight(
        shape=tuple(weight.shape),
        bits=config.bits,
        group_size=group_width(config.rounding(), weight.shape[1]),
        codes=torch.cat(
            [pack_bits(torch.cat(parts, dim=1).to(torch.uint8), config.bits) for parts in rows]
        ),
        scales=compact_scales(scales),
        zeros=zeros.to(dtype),
    )


@storage_plan.register
def storage_plan_hqq(config: HQQ, shape: tuple[int, int]) -> StoredWeight:
    if config.axis == "column":
        return TransposedWeight(shape, hqq_plan(config, shape[::-1]))
    return hqq_plan(config, shape)


def hqq_plan(config: HQQ, shape: tuple[int, int]) -> IntegerWeight:
    plain = storage_plan(config.rounding(), shape)
    return replace(plain, zeros=meta_tensor(*plain.scales.shape, dtype=torch.float16))
