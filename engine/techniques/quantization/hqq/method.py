"""HQQ (Badri & Shaji 2023): the zero point of each group by half-quadratic splitting, the scale as
plain rounding has it.

The loop is that of the hqq package's default solver: the exponent and beta are fixed, and it ends
when the mean error of the whole layer no longer falls.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from engine.techniques.hooks import blueprint, compress, sketch
from engine.techniques.quantization.grid import (
    ROWS_AT_ONCE,
    Levels,
    as_stored,
    group_width,
    grouped,
    storable,
)
from engine.techniques.quantization.hqq.config import HQQ
from engine.tensors.packing import packed
from engine.tensors.weights import Grid, Stored, Turned

EXPONENT = 0.7  # of the norm that is made small
BETA = 10.0
TURNS = 20
# of a step: how far a stored zero point may be off; codes are chosen for the stored one, so little
# is lost
COARSEST = 1 / 2


@dataclass
class Groups:
    """Some groups of one width on their way.  values: (rows, groups, width); scale, zero: (rows,
    groups, 1)
    """

    values: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor

    @classmethod
    def of(cls, values: torch.Tensor, levels: Levels) -> "Groups":
        low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
        scale = storable((high - low) / levels.reach)
        # all weights equal: code 0 and the zero point give them back
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return cls(values, scale, -low / scale)

    def turn(self, levels: Levels) -> float:
        """Move the zero points once. The absolute error before that, summed."""
        codes = fractional_codes(self.values, self.scale, self.zero, levels)
        missed = self.values - (codes - self.zero) * self.scale
        explained = self.values - shrunk(missed)
        self.zero = codes.sub_(explained.div_(self.scale)).mean(-1, keepdim=True)
        return missed.abs_().sum(dtype=torch.float64).item()


def shrunk(missed: torch.Tensor) -> torch.Tensor:
    """The proximal step of the norm: sign(x) * relu(|x| - |x|^(p-1) / beta), the part of an error
    that is an outlier's.
    """
    size = missed.abs()
    return size.sub_(size.pow(EXPONENT - 1).div_(BETA)).clamp_min_(0).mul_(missed.sign())


def fractional_codes(
    values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, levels: Levels
) -> torch.Tensor:
    """The nearest codes where zero lies between two of them."""
    return values.div(scale).add_(zero).round_().clamp_(levels.lowest, levels.highest)


def solved(how: HQQ, weight: torch.Tensor) -> list[list[Groups]]:
    """Quantize some rows at a time, in groups of each width with their optimal zero points. weight:
    (out, in_)
    """
    levels = Levels.of(how.rounding())
    pieces = [
        [Groups.of(part, levels) for part in grouped(rows, how.rounding())]
        for rows in weight.split(ROWS_AT_ONCE)
    ]
    least = float("inf")
    for _ in range(TURNS):
        lost = sum(groups.turn(levels) for groups in every(pieces))
        if not lost < least:
            break
        least = lost
    return pieces


def every(pieces: list[list[Groups]]) -> Iterator[Groups]:
    return (groups for piece in pieces for groups in piece)


def zeros_fit(zeros: torch.Tensor) -> bool:
    """Return True if float16 represents the zero points closely enough."""
    return bool(((zeros.half().float() - zeros).abs() <= COARSEST).all())


@compress.register
def compress_hqq(how: HQQ, weight: torch.Tensor) -> Stored:
    if how.axis == "column":
        return Turned(tuple(weight.shape), stored_rows(how, weight.T.contiguous()))
    return stored_rows(how, weight)


def stored_rows(how: HQQ, weight: torch.Tensor) -> Grid:
    """Codes are chosen once more for the zero points as they are stored."""
    pieces, levels = solved(how, weight), Levels.of(how.rounding())
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
    return Grid(
        shape=tuple(weight.shape),
        bits=how.bits,
        group_size=group_width(how.rounding(), weight.shape[1]),
        codes=torch.cat(
            [packed(torch.cat(parts, dim=1).to(torch.uint8), how.bits) for parts in rows]
        ),
        scales=as_stored(scales),
        zeros=zeros.to(dtype),
    )


@blueprint.register
def blueprint_hqq(how: HQQ, shape: tuple[int, int]) -> Stored:
    if how.axis == "column":
        return Turned(shape, planned_rows(how, shape[::-1]))
    return planned_rows(how, shape)


def planned_rows(how: HQQ, shape: tuple[int, int]) -> Grid:
    plain = blueprint(how.rounding(), shape)
    return replace(plain, zeros=sketch(*plain.scales.shape, dtype=torch.float16))
