"""GPTQ (Frantar et al. 2022, arXiv:2210.17323): column after column, each one's error pushed onto those still to come.

All arrays here are transposed, (in_, out): a column of the weight is a row in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from engine.catalog.calibrated import GPTQ
from engine.work.calibration.seen import Seen
from engine.work.methods.quantization.grid import Levels, as_stored, choose_qparams, group_width, unsigned
from engine.work.methods.stages import blueprint, compress, sketch
from engine.work.stored.packing import packed
from engine.work.stored.weights import Grid

LEAF = 32  # columns that are corrected one by one; everything wider is a matrix product


@dataclass
class Columns:
    """A weight on its way: what is left to round, what has been, and the grid of each group."""

    how: GPTQ
    left: torch.Tensor  # (in_, out), moves while it waits
    factor: torch.Tensor  # (in_, in_) upper Cholesky factor of the inverse Hessian
    group: torch.Tensor  # (in_,) the group of each column, ascending unless groups are static
    codes: torch.Tensor  # (in_, out)
    errors: torch.Tensor  # (in_, out)
    scales: torch.Tensor  # (groups, out)
    zeros: torch.Tensor
    fixed: bool  # scales are chosen already

    def round_between(self, begin: int, end: int) -> None:
        """Columns begin ... end. Halves are split where a group begins, so that a group is current when its scale is chosen."""
        if end - begin <= LEAF and (self.fixed or self.group[begin] == self.group[end - 1]):
            return self.round_leaf(begin, end)
        middle = self.split(begin, end)
        self.round_between(begin, middle)
        self.left[middle:end] -= self.factor[begin:middle, middle:end].T @ self.errors[begin:middle]
        self.round_between(middle, end)

    def split(self, begin: int, end: int) -> int:
        half = (begin + end) // 2
        if self.fixed or self.group[begin] == self.group[end - 1]:
            return half
        starts = (self.group[begin + 1 : end] != self.group[begin : end - 1]).nonzero().flatten() + begin + 1
        return int(starts[(starts - half).abs().argmin()])

    def round_leaf(self, begin: int, end: int) -> None:
        levels, before = Levels.of(self.how.rounding()), int(self.group[begin - 1]) if begin else -1
        groups, pivots = self.group[begin:end].tolist(), self.factor.diagonal()[begin:end].tolist()  # once: each look at a number waits
        for column, group, pivot in zip(range(begin, end), groups, pivots, strict=True):
            if not self.fixed and group != before:
                self.choose_scale(group)
            before = group
            weight, scale, zero = self.left[column], self.scales[group], self.zeros[group]
            code = torch.div(weight, scale, out=self.codes[column]).round_().add_(zero).clamp_(levels.lowest, levels.highest)
            error = torch.sub(weight, (code - zero).mul_(scale), out=self.errors[column]).div_(pivot)
            self.left[column + 1 : end].addr_(self.factor[column, column + 1 : end], error, alpha=-1)

    def held_after(self, done: int, before: torch.Tensor) -> torch.Tensor:
        """What all columns held once the first ``done`` were rounded, where ``before`` is what they held at first: those on the grid, the
        others moved. Known when all are rounded.  (in_, out)
        """
        return before - self.factor[:done].T @ self.errors[:done]

    def choose_scale(self, group: int) -> None:
        mine = self.left[self.group == group]
        scale, zero = choose_qparams(mine.T.unsqueeze(1), self.how.rounding())
        self.scales[group], self.zeros[group] = scale.flatten(), zero.flatten()


@compress.register
def _(how: GPTQ, weight: torch.Tensor, seen: Seen) -> Grid:
    """``weight``: (out, in_) float32"""
    columns, order = prepared(how, weight, seen)
    columns.round_between(0, len(order))
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
    columns = Columns(
        how, left, factor_of(seen, how, order), place[order] if how.static_groups else place,
        torch.empty_like(left), torch.empty_like(left), blank, blank.clone(), how.static_groups,
    )  # fmt: skip
    if how.static_groups:
        for group in range(len(blank)):
            columns.choose_scale(group)
    return columns, order


def factor_of(seen: Seen, how: GPTQ, order: torch.Tensor) -> torch.Tensor:
    """Upper Cholesky factor of the damped Hessian's inverse, made once for all layers with one input. Damps more where that fails, and says so."""
    key = (how.damping, how.activation_order)
    if key not in seen.factors:
        seen.factors[key] = next(factors(seen, how, order))
    return seen.factors[key]


def factors(seen: Seen, how: GPTQ, order: torch.Tensor) -> Iterator[torch.Tensor]:
    diagonal = seen.gram.diagonal()[order] / seen.count
    mean = diagonal.mean().clamp_min(1e-30)
    dead = diagonal <= 0
    if dead.any():
        seen.warnings.append(f"{int(dead.sum()):,} of {len(dead):,} inputs were always zero on the calibration data, so their weights became 0")
    damping = how.damping
    while True:
        lower, failed = torch.linalg.cholesky_ex(damped(seen, order, dead * mean + damping * mean).flip(0, 1))
        upper = inverse_of(lower).flip(0, 1) if not failed else lower
        if not failed and upper.isfinite().all():
            if damping > how.damping:
                seen.warnings.append(f"H could not be inverted with damping {how.damping:g}; {damping:g} was used")
            yield upper
        damping *= 10


def damped(seen: Seen, order: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """H with ``more`` on its diagonal, made anew: at the width of a large model each copy kept would be a gigabyte."""
    hessian = seen.gram[order][:, order].div_(seen.count)
    hessian.diagonal().add_(more)
    return hessian


def inverse_of(lower: torch.Tensor) -> torch.Tensor:
    """Of a lower triangular matrix. With H turned round as L L^T, the inverse of L turned back is the factor U of H^-1 = U^T U: no third step."""
    return torch.linalg.solve_triangular(lower, torch.eye(len(lower), device=lower.device), upper=False)


@blueprint.register
def _(how: GPTQ, shape: tuple[int, int]) -> Grid:
    from dataclasses import replace

    plain = blueprint(how.rounding(), shape)
    moved = how.activation_order and not how.static_groups
    return replace(plain, order=sketch(shape[1], dtype=torch.int32)) if moved else plain
