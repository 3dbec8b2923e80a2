"""Pruning masks and hard concrete gates, attached to a layer's weight as parametrizations."""

import math

import torch
from torch import nn
from torch.nn.utils import parametrize

# stretched range of a gate, which is clipped to 0 and 1, and the temperature, as in the paper
GATE_RANGE = (-0.1, 1.1)
GATE_TEMPERATURE = 2 / 3
INITIAL_OPENNESS = 2.5  # gates start fully open: sigmoid(2.5), stretched, exceeds 1
GATE_RATE_FACTOR = (
    100.0  # factor of the weights' rate; with less, gates take ten thousand steps to close
)


class WeightMask(nn.Module):
    """A mask over a weight. With ``regrow`` gradients reach pruned weights too (Lin et al. 2020,
    arXiv:2006.07253), so pruned weights keep training.
    """

    def __init__(self, weight: torch.Tensor, regrow: bool = False):
        super().__init__()
        self.regrow = regrow
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        left = weight * self.mask
        return weight + (left - weight).detach() if self.regrow else left


class HardConcreteGates(nn.Module):
    """Hard concrete gate for each weight (Louizos et al. 2018, arXiv:1712.01312): sampled during
    training, deterministic otherwise.
    """

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.openness = nn.Parameter(torch.full_like(weight, INITIAL_OPENNESS))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        low, high = GATE_RANGE
        return weight * (self.sample() * (high - low) + low).clamp(0, 1)

    def sample(self) -> torch.Tensor:
        """Gate values in [0, 1] (equation 10)."""
        if not self.training:
            return self.openness.sigmoid()
        noise = torch.rand_like(self.openness).clamp(1e-6, 1 - 1e-6)
        return ((noise.logit() + self.openness) / GATE_TEMPERATURE).sigmoid()

    def expected_open(self) -> torch.Tensor:
        """Expected number of open gates (equation 12)."""
        low, high = GATE_RANGE
        return (self.openness - GATE_TEMPERATURE * math.log(-low / high)).sigmoid().sum()


def attach_mask(modules: list[nn.Module], regrow: bool = False, gated: bool = False) -> WeightMask:
    """Attach a mask of ones, and gates before it if requested, to one weight, which several layers
    may share.
    """
    weight = modules[0].weight.detach()
    cut, gates = WeightMask(weight, regrow), HardConcreteGates(weight) if gated else None
    for module in modules:
        for module_part in (gates, cut):
            if module_part is not None:
                parametrize.register_parametrization(module, "weight", module_part)
    return cut


def gates_of(module: nn.Module) -> HardConcreteGates | None:
    return next(
        (
            parametrization
            for parametrization in module.parametrizations.weight
            if isinstance(parametrization, HardConcreteGates)
        ),
        None,
    )


def unmasked_weight(module: nn.Module) -> torch.Tensor:
    """The weight with its gates but without its mask."""
    weight, gates = module.parametrizations.weight.original.detach(), gates_of(module)
    return weight if gates is None else gates(weight).detach()
