"""GPTQ (Frantar et al. 2022, arXiv:2210.17323): column after column, each one's error pushed onto
those still to come.

All arrays here are transposed, (in_, out): a column of the weight is a row in memory.
"""

from dataclasses import dataclass

import torch

from engine.calibration.activation_stats import Seen
from engine.techniques.hooks import blueprint, compress, sketch
from engine.techniques.obs_sweep import Sweep, factor_of
from engine.techniques.quantization.gptq.config import GPTQ
from engine.techniques.quantization.grid import (
    Levels,
    as_stored,
    group_width,
    qparams_of_weight,
    unsigned,
)
from engine.tensors.packing import packed
from engine.tensors.weights import Grid


@dataclass
class Columns(Sweep):
    """A weight that is rounded, and the grid of each group."""

    how: GPTQ
    group: torch.Tensor  # (in_,) the group of each column, ascending unless groups are static
    codes: torch.Tensor  # (in_, out)
    scales: torch.Tensor  # (groups, out)
    zeros: torch.Tensor
    fixed: bool  # scales are chosen already
    # (in_, out) whether a weight is to be more than zero, where some are zero already: they were
    # pruned
    stays: torch.Tensor | None

    def is_leaf(self, begin: int, end: int) -> bool:
        return super().is_leaf(begin, end) and self.shares_scales(begin, end)

    def shares_scales(self, begin: int, end: int) -> bool:
        return self.fixed or bool(self.group[begin] == self.group[end - 1])

    def middle(self, begin: int, end: int) -> int:
        """Split point of the columns, moved to the start of a group so that its weights are up to
        date when its scale is chosen.
        """
        half = super().middle(begin, end)
        if self.shares_scales(begin, end):
            return half
        starts = (
            (self.group[begin + 1 : end] != self.group[begin : end - 1]).nonzero().flatten()
            + begin
            + 1
        )
        return int(starts[(starts - half).abs().argmin()])

    def leaf(self, begin: int, end: int) -> None:
        levels, before = Levels.of(self.how.rounding()), int(self.group[begin - 1]) if begin else -1
        # once: each look at a number waits
        groups, pivots = self.group[begin:end].tolist(), self.factor.diagonal()[begin:end].tolist()
        for column, group, pivot in zip(range(begin, end), groups, pivots, strict=True):
            if not self.fixed and group != before:
                self.choose_scale(group)
            before = group
            weight, scale, zero = self.left[column], self.scales[group], self.zeros[group]
            wanted = weight if self.stays is None else weight * self.stays[column]
            code = (
                torch.div(wanted, scale, out=self.codes[column])
                .round_()
                .add_(zero)
                .clamp_(levels.lowest, levels.highest)
            )
            error = torch.sub(weight, (code - zero).mul_(scale), out=self.errors[column]).div_(
                pivot
            )
            self.left[column + 1 : end].addr_(
                self.factor[column, column + 1 : end], error, alpha=-1
            )

    def choose_scale(self, group: int) -> None:
        mine = self.left[self.group == group]
        mine = mine if self.stays is None else mine * self.stays[self.group == group]
        scale, zero = qparams_of_weight(mine.T, self.how.rounding())  # (out, 1) each
        self.scales[group], self.zeros[group] = scale.flatten(), zero.flatten()


@compress.register
def compress_gptq(how: GPTQ, weight: torch.Tensor, seen: Seen) -> Grid:
    """``weight``: (out, in_) float32"""
    columns, order = prepared(how, weight, seen)
    columns.work_off(0, len(order))
    rounding, moved = how.rounding(), how.activation_order and not how.static_groups
    codes = columns.codes if moved else columns.codes[order.argsort()]
    return Grid(
        shape=tuple(weight.shape),
        bits=how.bits,
        group_size=group_width(rounding, weight.shape[1]),
        codes=packed(unsigned(codes.T.contiguous(), rounding), how.bits),
        scales=as_stored(columns.scales.T.contiguous()),
        zeros=packed(columns.zeros.T.to(torch.uint8), how.bits)
        if how.scheme == "asymmetric"
        else None,
        order=order.int() if moved else None,
    )


def prepared(how: GPTQ, weight: torch.Tensor, seen: Seen) -> tuple[Columns, torch.Tensor]:
    """State of the sweep in the order of rounding, and that order."""
    diagonal = seen.gram.diagonal() / seen.count
    order = (
        diagonal.argsort(descending=True, stable=True)
        if how.activation_order
        else torch.arange(len(diagonal), device=weight.device)
    )
    weight = weight * (diagonal > 0)  # an input that is always zero: its weights do not count
    left = weight.T.contiguous()[order]
    place = torch.arange(len(order), device=weight.device) // group_width(
        how.rounding(), weight.shape[1]
    )
    if how.static_groups:
        scales, zeros = (each.T.contiguous() for each in qparams_of_weight(weight, how.rounding()))
    else:
        scales, zeros = torch.zeros(2, int(place[-1]) + 1, len(weight), device=weight.device)
    stays = left != 0
    factor = factor_of(seen, how.damping, order if how.activation_order else None)
    columns = Columns(
        left,
        factor,
        torch.empty_like(left),
        how,
        place[order] if how.static_groups else place,
        torch.empty_like(left),
        scales,
        zeros,
        how.static_groups,
        None if stays.all() else stays,
    )
    return columns, order


@blueprint.register
def blueprint_gptq(how: GPTQ, shape: tuple[int, int]) -> Grid:
    from dataclasses import replace

    plain = blueprint(how.rounding(), shape)
    moved = how.activation_order and not how.static_groups
    return replace(plain, order=sketch(shape[1], dtype=torch.int32)) if moved else plain
