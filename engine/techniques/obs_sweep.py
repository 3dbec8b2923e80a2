"""Optimal Brain Surgeon: columns are processed one after the other, and each one's error is
compensated by the columns after it, as in GPTQ and SparseGPT.

All arrays are transposed, (in_, out): a column of the weight is a row in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from engine.calibration.activation_stats import InputStats

BLOCK_COLUMNS = 32  # columns that are updated one by one; wider ranges use matrix products


@dataclass
class ColumnSweep:
    """A weight during processing. Subclasses define ``process_block``."""

    weight: torch.Tensor  # (in_, out), updated until a column is processed
    factor: torch.Tensor  # (in_, in_) upper Cholesky factor of the inverse Hessian
    errors: torch.Tensor  # (in_, out), divided by the pivots

    def process(self, begin: int, end: int) -> None:
        """Process columns begin ... end by recursive halving, so that updates between halves are
        matrix products.
        """
        if self.is_block(begin, end):
            return self.process_block(begin, end)
        middle = self.split_point(begin, end)
        self.process(begin, middle)
        self.propagate(begin, middle, end)
        self.process(middle, end)

    def propagate(self, begin: int, middle: int, end: int) -> None:
        """Compensate the errors of columns begin ... middle in columns middle ... end."""
        self.weight[middle:end] -= (
            self.factor[begin:middle, middle:end].T @ self.errors[begin:middle]
        )

    def is_block(self, begin: int, end: int) -> bool:
        return end - begin <= BLOCK_COLUMNS

    def split_point(self, begin: int, end: int) -> int:
        return (begin + end) // 2

    def process_block(self, begin: int, end: int) -> None:
        raise NotImplementedError

    def values_after(self, done: int, before: torch.Tensor) -> torch.Tensor:
        """Values of all columns after the first ``done`` were processed, (in_, out): stored values
        of those, and adjusted values of the others. ``before`` are the initial values. Available
        after all columns are processed.
        """
        return before - self.factor[:done].T @ self.errors[:done]


def hessian_factor(
    stats: InputStats, damping: float, order: torch.Tensor | None = None
) -> torch.Tensor:
    """Upper Cholesky factor of the damped Hessian's inverse, computed once for all layers with a
    common input. Damping is increased, with a warning, until the factorization succeeds. ``order``:
    order of the columns, (in_,); None for left to right.
    """
    key = (damping, order is not None)
    if key not in stats.factors:
        order = torch.arange(stats.width, device=stats.gram.device) if order is None else order
        stats.factors[key] = next(damped_factors(stats, damping, order))
    return stats.factors[key]


def damped_factors(
    stats: InputStats, first_damping: float, order: torch.Tensor
) -> Iterator[torch.Tensor]:
    diagonal = stats.gram.diagonal()[order] / stats.count
    mean = diagonal.mean().clamp_min(1e-30)
    dead = diagonal <= 0
    if dead.any():
        stats.warnings.append(
            f"{int(dead.sum()):,} of {len(dead):,} inputs were always zero on the "
            "calibration data, so their weights became 0"
        )
    damping = first_damping
    while True:
        lower, failed = torch.linalg.cholesky_ex(
            damped_hessian(stats, order, dead * mean + damping * mean).flip(0, 1)
        )
        upper = triangular_inverse(lower).flip(0, 1) if not failed else lower
        if not failed and upper.isfinite().all():
            if damping > first_damping:
                stats.warnings.append(
                    f"H could not be inverted with damping {first_damping:g}; {damping:g} was used"
                )
            yield upper
        damping *= 10


def damped_hessian(stats: InputStats, order: torch.Tensor, damping: torch.Tensor) -> torch.Tensor:
    """H with ``damping`` on its diagonal, in a new tensor: for a large model each further copy
    would take a gigabyte.
    """
    hessian = stats.gram[order][:, order].div_(stats.count)
    hessian.diagonal().add_(damping)
    return hessian


def triangular_inverse(lower: torch.Tensor) -> torch.Tensor:
    """Inverse of a lower triangular matrix. With H reversed as L L^T, the reversed inverse of L is
    the factor U of H^-1 = U^T U, without a third step.
    """
    return torch.linalg.solve_triangular(
        lower, torch.eye(len(lower), device=lower.device), upper=False
    )
