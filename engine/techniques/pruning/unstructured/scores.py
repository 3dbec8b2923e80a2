"""Importance of each weight by the technique's criterion: (out, in_) float32, not negative; larger
ones are kept longer.
"""

from functools import singledispatch

import torch

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.techniques.pruning.options import Pruning
from engine.techniques.pruning.unstructured.config import (
    Magnitude,
    OptimalBrainDamage,
    Random,
    Taylor,
    Wanda,
)


@singledispatch
def importance(
    config: Pruning, weight: torch.Tensor, stats: InputStats | GradientStats | None = None
) -> torch.Tensor:
    raise TypeError(f"no score for {type(config).__name__}")


@importance.register
def importance_random(config: Random, weight: torch.Tensor, stats: None = None) -> torch.Tensor:
    """Random scores; ``config.draw`` is the seed, which ``plan`` changes for each layer."""
    return torch.rand(weight.shape, generator=torch.Generator().manual_seed(config.draw)).to(
        weight.device
    )


@importance.register
def importance_magnitude(
    config: Magnitude, weight: torch.Tensor, stats: None = None
) -> torch.Tensor:
    return weight.abs()


@importance.register
def importance_wanda(config: Wanda, weight: torch.Tensor, stats: InputStats) -> torch.Tensor:
    """|w| times the norm of the input (arXiv:2306.11695, equation 1). The norm is per input vector,
    which does not change the order.
    """
    return weight.abs() * stats.rms


@importance.register
def importance_taylor(config: Taylor, weight: torch.Tensor, stats: GradientStats) -> torch.Tensor:
    """|w g| with the mean gradient (arXiv:1906.10771, equation 7 before it is squared)."""
    return (weight * stats.mean).abs()


@importance.register
def importance_optimal_brain_damage(
    config: OptimalBrainDamage, weight: torch.Tensor, stats: GradientStats
) -> torch.Tensor:
    """h w^2 / 2 (LeCun et al. 1989, equation 5), with the Fisher information for the curvature
    h.
    """
    return weight.square() * stats.square / 2


@singledispatch
def comparable_between_layers(config: Pruning, score: torch.Tensor) -> torch.Tensor:
    """Scores of a layer that are comparable with those of other layers. Magnitudes and changes of
    the loss are comparable already.
    """
    return score


@comparable_between_layers.register
def comparable_between_layers_wanda(config: Wanda, score: torch.Tensor) -> torch.Tensor:
    """Scores as a share of the layer's output norm; otherwise layers with small inputs would be
    emptied.
    """
    return score / score.norm().clamp_min(1e-30)
