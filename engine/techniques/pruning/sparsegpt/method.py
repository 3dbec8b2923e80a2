"""SparseGPT (Frantar & Alistarh 2023, arXiv:2301.00774): weights are chosen in blocks of columns,
and the remaining ones compensate for them.
"""

from dataclasses import dataclass

import torch

from engine.calibration.activation_stats import InputStats
from engine.techniques.hooks import compress
from engine.techniques.obs_sweep import ColumnSweep, hessian_factor
from engine.techniques.pruning.masks import check_divisible, keep_mask, n_of_m_mask
from engine.techniques.pruning.options import parse_pattern
from engine.techniques.pruning.sparsegpt.config import SparseGPT
from engine.techniques.pruning.unstructured.method import stored_remaining
from engine.techniques.pruning.unstructured.scores import comparable_between_layers, importance
from engine.tensors.weights import StoredWeight


@dataclass
class PruningSweep(ColumnSweep):
    """Pruning of one weight. Arrays are (in_, out)."""

    removed_mask: torch.Tensor  # (in_, out) bool
    pattern: tuple[int, int] | None  # N, M: chosen for every M columns when they are processed

    @property
    def group_columns(self) -> int:
        """M, or 1 without a pattern: blocks do not end inside a group of this many columns."""
        return self.pattern[1] if self.pattern else 1

    def is_block(self, begin: int, end: int) -> bool:
        return super().is_block(begin, end) or end - begin <= self.group_columns

    def split_point(self, begin: int, end: int) -> int:
        return begin + max(1, (end - begin) // (2 * self.group_columns)) * self.group_columns

    def process_block(self, begin: int, end: int) -> None:
        pivots = self.factor.diagonal()[begin:end].tolist()
        for column, pivot in zip(range(begin, end), pivots, strict=True):
            if self.pattern and column % self.group_columns == 0:
                self.removed_mask[column : column + self.group_columns] = ~n_of_m_mask(
                    self.cost(column, column + self.group_columns).T, *self.pattern
                ).T
            error = torch.mul(
                self.weight[column], self.removed_mask[column], out=self.errors[column]
            ).div_(pivot)
            self.weight[column + 1 : end].addr_(
                self.factor[column, column + 1 : end], error, alpha=-1
            )

    def cost(self, begin: int, end: int) -> torch.Tensor:
        """Output error of removing each weight after all later ones are adjusted (equation 3),
        (columns, out).
        """
        return (self.weight[begin:end] / self.factor.diagonal()[begin:end, None]).square()

    def choose_removed(self, begin: int, end: int, config: SparseGPT) -> None:
        """Choose weights among these columns, per row or among all rows."""
        self.removed_mask[begin:end] = ~keep_mask(self.cost(begin, end).T, config).T


@compress.register
def compress_sparsegpt(config: SparseGPT, weight: torch.Tensor, stats: InputStats) -> StoredWeight:
    """``weight``: (out, in_) float32"""
    return stored_remaining(
        pruning_sweep(config, weight, stats).weight.T.contiguous(), weight, config
    )


def pruning_sweep(config: SparseGPT, weight: torch.Tensor, stats: InputStats) -> PruningSweep:
    """The pruned weight with adjusted remaining weights."""
    pattern = parse_pattern(config.pattern) if config.pattern else None
    if pattern:
        check_divisible(weight.shape[1], pattern[1])
    # an input that is always zero: its weights do not matter
    left = (weight * (stats.gram.diagonal() > 0)).T.contiguous()
    sweep = PruningSweep(
        left,
        hessian_factor(stats, config.damping),
        torch.empty_like(left),
        torch.zeros_like(left, dtype=torch.bool),
        pattern,
    )
    in_, width = len(left), block_width(config, pattern)
    for begin in range(0, in_, width):
        end = min(begin + width, in_)
        if not pattern:
            sweep.choose_removed(begin, end, config)
        sweep.process(begin, end)
        sweep.propagate(begin, end, in_)
    sweep.weight.masked_fill_(sweep.removed_mask, 0)
    return sweep


def block_width(config: SparseGPT, pattern: tuple[int, int] | None) -> int:
    """Whole groups of M."""
    return -(-config.block_columns // pattern[1]) * pattern[1] if pattern else config.block_columns


@importance.register
def importance_sparsegpt(
    config: SparseGPT, weight: torch.Tensor, stats: InputStats
) -> torch.Tensor:
    """Output error of removing each weight alone, before any is adjusted (arXiv:2301.00774,
    equation 3). If only the inputs' norms are known, as when a global budget is divided among
    layers, adjustment of the other weights is ignored.
    """
    if stats.wants_gram:
        return (weight / hessian_factor(stats, config.damping).diagonal()).square()
    return weight.square() * stats.rms.square()


@comparable_between_layers.register
def comparable_between_layers_sparsegpt(config: SparseGPT, score: torch.Tensor) -> torch.Tensor:
    """Scores divided by their sum; SparseGPT's scores are squared errors."""
    return score / score.sum().clamp_min(1e-30)
