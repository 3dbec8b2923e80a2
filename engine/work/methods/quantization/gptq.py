"""GPTQ (Frantar et al. 2022, arXiv:2210.17323): column after column, each one's error pushed onto those still to come.

All arrays here are transposed, (in_, out): a column of the weight is a row in memory.
"""

from dataclasses import dataclass

import torch

from engine.catalog.calibrated import GPTQ
from engine.work.calibration.seen import Seen
from engine.work.methods.column_by_column import Sweep, factor_of
from engine.work.methods.quantization.grid import Levels, as_stored, choose_qparams, group_width, unsigned
from engine.work.methods.stages import blueprint, compress, sketch
from engine.work.stored.packing import packed
from engine.work.stored.weights import Grid


@dataclass
class Columns(Sweep):
    """A weight that is rounded, and the grid of each group."""

    how: GPTQ
    group: torch.Tensor  # (in_,) the group of each column, ascending unless groups are static
    codes: torch.Tensor  # (in_, out)
    scales: torch.Tensor  # (groups, out)
    zeros: torch.Tensor
    fixed: bool  # scales are chosen already
    stays: torch.Tensor | None  # (in_, out) whether a weight is to be more than zero, where some are zero already: they were pruned

    def is_leaf(self, begin: int, end: int) -> bool:
        return super().is_leaf(begin, end) and self.shares_scales(begin, end)

    def shares_scales(self, begin: int, end: int) -> bool:
        return self.fixed or bool(self.group[begin] == self.group[end - 1])

    def middle(self, begin: int, end: int) -> int:
        """Where a group begins, so that a group is current when its scale is chosen."""
        half = super().middle(begin, end)
        if self.shares_scales(begin, end):
            return half
        starts = (self.group[begin + 1 : end] != self.group[begin : end - 1]).nonzero().flatten() + begin + 1
        return int(starts[(starts - half).abs().argmin()])

    def leaf(self, begin: int, end: int) -> None:
        levels, before = Levels.of(self.how.rounding()), int(self.group[begin - 1]) if begin else -1
        groups, pivots = self.group[begin:end].tolist(), self.factor.diagonal()[begin:end].tolist()  # once: each look at a number waits
        for column, group, pivot in zip(range(begin, end), groups, pivots, strict=True):
            if not self.fixed and group != before:
                self.choose_scale(group)
            before = group
            weight, scale, zero = self.left[column], self.scales[group], self.zeros[group]
            wanted = weight if self.stays is None else weight * self.stays[column]
            code = torch.div(wanted, scale, out=self.codes[column]).round_().add_(zero).clamp_(levels.lowest, levels.highest)
            error = torch.sub(weight, (code - zero).mul_(scale), out=self.errors[column]).div_(pivot)
            self.left[column + 1 : end].addr_(self.factor[column, column + 1 : end], error, alpha=-1)

    def choose_scale(self, group: int) -> None:
        mine = self.left[self.group == group]
        mine = mine if self.stays is None else mine * self.stays[self.group == group]
        scale, zero = choose_qparams(mine.T.unsqueeze(1), self.how.rounding())
        self.scales[group], self.zeros[group] = scale.flatten(), zero.flatten()


@compress.register
def _(how: GPTQ, weight: torch.Tensor, seen: Seen) -> Grid:
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
        zeros=packed(columns.zeros.T.to(torch.uint8), how.bits) if how.scheme == "asymmetric" else None,
        order=order.int() if moved else None,
    )


def prepared(how: GPTQ, weight: torch.Tensor, seen: Seen) -> tuple[Columns, torch.Tensor]:
    """Everything in the order of rounding, and that order."""
    diagonal = seen.gram.diagonal() / seen.count
    order = diagonal.argsort(descending=True, stable=True) if how.activation_order else torch.arange(len(diagonal), device=weight.device)
    left = (weight * (diagonal > 0)).T.contiguous()[order]  # an input that is always zero: its weights do not count
    width = group_width(how.rounding(), weight.shape[1])
    place = torch.arange(len(order), device=weight.device) // width
    blank = torch.zeros(int(place[-1]) + 1, len(weight), device=weight.device)
    stays = left != 0
    factor = factor_of(seen, how.damping, order if how.activation_order else None)
    columns = Columns(
        left, factor, torch.empty_like(left), how, place[order] if how.static_groups else place,
        torch.empty_like(left), blank, blank.clone(), how.static_groups, None if stays.all() else stays,
    )  # fmt: skip
    if how.static_groups:
        for group in range(len(blank)):
            columns.choose_scale(group)
    return columns, order


@blueprint.register
def _(how: GPTQ, shape: tuple[int, int]) -> Grid:
    from dataclasses import replace

    plain = blueprint(how.rounding(), shape)
    moved = how.activation_order and not how.static_groups
    return replace(plain, order=sketch(shape[1], dtype=torch.int32)) if moved else plain
