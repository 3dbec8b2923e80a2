"""SparseGPT (Frantar & Alistarh 2023, arXiv:2301.00774): the weights that go are chosen some
columns at a time, and the rest make up for them.
"""

from dataclasses import dataclass

import torch

from engine.calibration.activation_stats import Seen
from engine.techniques.hooks import compress
from engine.techniques.obs_sweep import Sweep, factor_of
from engine.techniques.pruning.masks import best_of_every, refuse_uneven, stays
from engine.techniques.pruning.options import n_of_m
from engine.techniques.pruning.sparsegpt.config import SparseGPT
from engine.techniques.pruning.unstructured.method import kept
from engine.tensors.weights import Stored


@dataclass
class Removal(Sweep):
    """A weight of which some become zero.  Arrays are (in_, out)"""

    going: torch.Tensor  # (in_, out) bool
    pattern: tuple[int, int] | None  # N, M: chosen for every M columns as they come up

    @property
    def of(self) -> int:
        """M, or 1 without a pattern: no leaf ends inside a group of this many columns."""
        return self.pattern[1] if self.pattern else 1

    def is_leaf(self, begin: int, end: int) -> bool:
        return super().is_leaf(begin, end) or end - begin <= self.of

    def middle(self, begin: int, end: int) -> int:
        return begin + max(1, (end - begin) // (2 * self.of)) * self.of

    def leaf(self, begin: int, end: int) -> None:
        pivots = self.factor.diagonal()[begin:end].tolist()
        for column, pivot in zip(range(begin, end), pivots, strict=True):
            if self.pattern and column % self.of == 0:
                self.going[column : column + self.of] = ~best_of_every(
                    self.cost(column, column + self.of).T, *self.pattern
                ).T
            error = torch.mul(self.left[column], self.going[column], out=self.errors[column]).div_(
                pivot
            )
            self.left[column + 1 : end].addr_(
                self.factor[column, column + 1 : end], error, alpha=-1
            )

    def cost(self, begin: int, end: int) -> torch.Tensor:
        """Output error of removing each weight after all later ones are adjusted (equation 3),
        (columns, out).
        """
        return (self.left[begin:end] / self.factor.diagonal()[begin:end, None]).square()

    def choose(self, begin: int, end: int, how: SparseGPT) -> None:
        """Among these columns: of each row, or of all rows together."""
        self.going[begin:end] = ~stays(self.cost(begin, end).T, how).T


@compress.register
def compress_sparsegpt(how: SparseGPT, weight: torch.Tensor, seen: Seen) -> Stored:
    """``weight``: (out, in_) float32"""
    return kept(removed(how, weight, seen).left.T.contiguous(), weight, how)


def removed(how: SparseGPT, weight: torch.Tensor, seen: Seen) -> Removal:
    """The weight worked off: what is left of it, with zeros."""
    pattern = n_of_m(how.pattern) if how.pattern else None
    if pattern:
        refuse_uneven(weight.shape[1], pattern[1])
    # an input that is always zero: its weights do not count
    left = (weight * (seen.gram.diagonal() > 0)).T.contiguous()
    sweep = Removal(
        left,
        factor_of(seen, how.damping),
        torch.empty_like(left),
        torch.zeros_like(left, dtype=torch.bool),
        pattern,
    )
    in_, width = len(left), columns_at_once(how, pattern)
    for begin in range(0, in_, width):
        end = min(begin + width, in_)
        if not pattern:
            sweep.choose(begin, end, how)
        sweep.work_off(begin, end)
        sweep.push_on(begin, end, in_)
    sweep.left.masked_fill_(sweep.going, 0)
    return sweep


def columns_at_once(how: SparseGPT, pattern: tuple[int, int] | None) -> int:
    """Whole groups of M."""
    return -(-how.block_columns // pattern[1]) * pattern[1] if pattern else how.block_columns
