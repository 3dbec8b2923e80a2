"""How much each weight matters, by the technique that was asked for: larger stays longer.  (out, in_) float32, none below zero"""

from functools import singledispatch

import torch

from engine.catalog.pruning import Magnitude, OptimalBrainDamage, Pruning, Random, SparseGPT, Taylor, Wanda
from engine.work.calibration import Seen
from engine.work.calibration.gradients import Slopes
from engine.work.methods.column_by_column import factor_of


@singledispatch
def importance(how: Pruning, weight: torch.Tensor, seen: Seen | Slopes | None = None) -> torch.Tensor:
    raise TypeError(f"no score for {type(how).__name__}")


@importance.register
def _(how: Random, weight: torch.Tensor, seen: None = None) -> torch.Tensor:
    """By lot; ``how.draw`` is the seed, which the plan makes another one for each layer."""
    return torch.rand(weight.shape, generator=torch.Generator().manual_seed(how.draw)).to(weight.device)


@importance.register
def _(how: Magnitude, weight: torch.Tensor, seen: None = None) -> torch.Tensor:
    return weight.abs()


@importance.register
def _(how: Wanda, weight: torch.Tensor, seen: Seen) -> torch.Tensor:
    """|w| times the input's norm (arXiv:2306.11695, equation 1); the norm is that of a mean vector, which orders alike."""
    return weight.abs() * seen.rms


@importance.register
def _(how: SparseGPT, weight: torch.Tensor, seen: Seen) -> torch.Tensor:
    """What the output would lose (arXiv:2301.00774, equation 3), each weight by itself and before any has moved. Where only the inputs' strengths
    are known, to share a global budget out over layers, without what the other weights would make up for.
    """
    if seen.wants_gram:
        return (weight / factor_of(seen, how.damping).diagonal()).square()
    return weight.square() * seen.rms.square()


@importance.register
def _(how: Taylor, weight: torch.Tensor, seen: Slopes) -> torch.Tensor:
    """|w g| with the mean slope (arXiv:1906.10771, equation 7 before it is squared)."""
    return (weight * seen.mean).abs()


@importance.register
def _(how: OptimalBrainDamage, weight: torch.Tensor, seen: Slopes) -> torch.Tensor:
    """h w^2 / 2 (LeCun et al. 1989, equation 5), with the Fisher information for the curvature h."""
    return weight.square() * seen.square / 2


@singledispatch
def among_layers(how: Pruning, score: torch.Tensor) -> torch.Tensor:
    """A layer's scores so that they may stand beside those of other layers. By size and by loss they may as they are."""
    return score


@among_layers.register
def _(how: Wanda, score: torch.Tensor) -> torch.Tensor:
    """As a share of the layer's whole output: layers with quiet inputs would be emptied otherwise."""
    return score / score.norm().clamp_min(1e-30)


@among_layers.register
def _(how: SparseGPT, score: torch.Tensor) -> torch.Tensor:
    """The same; these scores are squares."""
    return score / score.sum().clamp_min(1e-30)
