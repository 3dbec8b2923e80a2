"""Whitening of a matrix for its factorization: its rows or columns are scaled before, and the
factors divided afterwards.
"""

from dataclasses import dataclass

import torch

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.runtime.threads import threads_for
from engine.techniques.low_rank.options import WhitenedLowRank

MIN_STRENGTH = 1e-4  # relative to the mean: weight of an input or row without any data


@dataclass(frozen=True)
class Whitening:
    """W -> diag(rows) W S, of which the best approximation of a rank is computed."""

    rows: torch.Tensor | None = None  # (out,)
    columns: torch.Tensor | None = None  # (in_,)
    root: torch.Tensor | None = None  # (in_, in_) lower triangular S with S S^T = X^T X / N

    @property
    def is_plain(self) -> bool:
        return self.rows is None and self.columns is None and self.root is None

    def whiten(self, weight: torch.Tensor) -> torch.Tensor:
        """(out, in_) -> (out, in_)"""
        if self.rows is not None:
            weight = weight * self.rows[:, None]
        if self.columns is not None:
            weight = weight * self.columns
        return weight if self.root is None else weight @ self.root

    def unwhiten_factors(
        self, left: torch.Tensor, right: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Factors of the weight from those of the whitened weight. (out, rank), (rank, in_)"""
        if self.rows is not None:
            left = left / self.rows[:, None]
        if self.columns is not None:
            right = right / self.columns
        return left, right if self.root is None else torch.linalg.solve_triangular(
            self.root, right, upper=False, left=False
        )


NO_WHITENING = Whitening()


def whitening(config: WhitenedLowRank, stats: InputStats | GradientStats | None) -> Whitening:
    match config.whitening:
        case "asvd":
            return Whitening(columns=positive_strengths(stats.abs_mean).pow(config.alpha))
        case "svd-llm":
            return Whitening(root=gram_root(stats, config.damping))
        case "fisher":
            return Whitening(rows=positive_strengths(stats.square.sum(1).sqrt()))
        case _:
            return NO_WHITENING


def positive_strengths(strengths: torch.Tensor) -> torch.Tensor:
    """Magnitudes of channels with a lower bound, so that dividing by them is safe."""
    return strengths.clamp_min(MIN_STRENGTH * strengths.mean().clamp_min(1e-30))


def gram_root(stats: InputStats, damping: float) -> torch.Tensor:
    """Lower Cholesky factor of the damped Gram matrix (arXiv:2403.07378, section 3.2), computed
    once for all layers with a common input. With equal damping of all directions, no matrix of the
    rank loses less of the output than plain SVD's.
    """
    key = ("root", damping)
    if key not in stats.factors:
        stats.factors[key] = damped_root(stats, damping)
    return stats.factors[key]


def damped_root(stats: InputStats, first_damping: float) -> torch.Tensor:
    # in double precision, because small values determine which directions are free
    gram = stats.gram.double() / max(1, stats.count)
    mean = gram.diagonal().mean().clamp_min(1e-30)
    damping = first_damping
    while True:
        with threads_for(gram.shape):
            lower, failed = torch.linalg.cholesky_ex(
                gram + damping * mean * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
            )
        if not failed and lower.isfinite().all():
            warn_about_damping(stats, first_damping, damping)
            return lower.float()
        damping *= 10


def warn_about_damping(stats: InputStats, damping: float, used: float) -> None:
    if stats.count < stats.width:
        stats.warnings.append(
            f"{stats.count:,} input vectors cannot span {stats.width:,} inputs, so damping "
            f"({used:g}) stands for the rest; give more data"
        )
    elif used > damping:
        stats.warnings.append(
            f"the inputs' Gram matrix could not be factorized with damping {damping:g}; "
            f"{used:g} was used"
        )
