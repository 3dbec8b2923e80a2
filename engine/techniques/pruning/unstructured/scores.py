"""Importance of each weight by the technique's criterion: (out, in_) float32, not negative; larger
ones are kept longer.
"""

from functools import singledispatch

import torch

from engine.calibration import Seen
from engine.calibration.gradient_stats import Slopes
from engine.techniques.obs_sweep import factor_of
from engine.techniques.pruning.options import Pruning
from engine.techniques.pruning.sparsegpt.config import SparseGPT
from engine.techniques.pruning.unstructured.config import (
    Magnitude,
    OptimalBrainDamage,
    Random,
    Taylor,
    Wanda,
)


@singledispatch
def importance(
    how: Pruning, weight: torch.Tensor, seen: Seen | Slopes | None = None
) -> torch.Tensor:
    raise TypeError(f"no score for {type(how).__name__}")


@importance.register
def importance_random(how: Random, weight: torch.Tensor, seen: None = None) -> torch.Tensor:
    """Random scores; ``how.draw`` is the seed, which ``plan`` changes for each layer."""
    return torch.rand(weight.shape, generator=torch.Generator().manual_seed(how.draw)).to(
        weight.device
    )


@importance.register
def importance_magnitude(how: Magnitude, weight: torch.Tensor, seen: None = None) -> torch.Tensor:
    return weight.abs()


@importance.register
def importance_wanda(how: Wanda, weight: torch.Tensor, seen: Seen) -> torch.Tensor:
    """|w| times the input's norm (arXiv:2306.11695, equation 1); the norm is that of a mean vector,
    which orders alike.
    """
    return weight.abs() * seen.rms


@importance.register
def importance_sparsegpt(how: SparseGPT, weight: torch.Tensor, seen: Seen) -> torch.Tensor:
    """Output error of removing each weight alone, before any is adjusted (arXiv:2301.00774,
    equation 3). If only the inputs' norms are known, as when a global budget is divided among
    layers, without the adjustment of the other weights.
    """
    if seen.wants_gram:
        return (weight / factor_of(seen, how.damping).diagonal()).square()
    return weight.square() * seen.rms.square()


@importance.register
def importance_taylor(how: Taylor, weight: torch.Tensor, seen: Slopes) -> torch.Tensor:
    """|w g| with the mean gradient (arXiv:1906.10771, equation 7 before it is squared)."""
    return (weight * seen.mean).abs()


@importance.register
def importance_optimal_brain_damage(
    how: OptimalBrainDamage, weight: torch.Tensor, seen: Slopes
) -> torch.Tensor:
    """h w^2 / 2 (LeCun et al. 1989, equation 5), with the Fisher information for the curvature
    h.
    """
    return weight.square() * seen.square / 2


@singledispatch
def among_layers(how: Pruning, score: torch.Tensor) -> torch.Tensor:
    """A layer's scores so that they are comparable with those of other layers. By size and by loss
    they may as they are.
    """
    return score


@among_layers.register
def among_layers_wanda(how: Wanda, score: torch.Tensor) -> torch.Tensor:
    """Scores as a share of the layer's output norm; otherwise layers with small inputs would be
    emptied.
    """
    return score / score.norm().clamp_min(1e-30)


@among_layers.register
def among_layers_sparsegpt(how: SparseGPT, score: torch.Tensor) -> torch.Tensor:
    """The same; these scores are squares."""
    return score / score.sum().clamp_min(1e-30)
