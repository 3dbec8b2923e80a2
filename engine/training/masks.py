"""Weights that the forward pass sees as zero, by a mask or by gates that close. They hang on a
layer's weight as parametrizations.
"""

import math

import torch
from torch import nn
from torch.nn.utils import parametrize

# of a gate before it is clipped to 0 and 1, and the temperature of its draws: the paper's
REACH = (-0.1, 1.1)
BETA = 2 / 3
OPEN = 2.5  # gates begin fully open: sigmoid(2.5) stretched is beyond 1
GATE_PACE = 100.0  # times the weights' rate, or gates would take ten thousand steps to close


class Cut(nn.Module):
    """A mask over a weight. With ``regrow`` gradients reach cut weights too (Lin et al. 2020,
    arXiv:2006.07253), so they go on learning.
    """

    def __init__(self, weight: torch.Tensor, regrow: bool = False):
        super().__init__()
        self.regrow = regrow
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        left = weight * self.mask
        return weight + (left - weight).detach() if self.regrow else left


class Gates(nn.Module):
    """A hard concrete gate before each weight (Louizos et al. 2018, arXiv:1712.01312): drawn while
    training, settled otherwise.
    """

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.openness = nn.Parameter(torch.full_like(weight, OPEN))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        low, high = REACH
        return weight * (self.drawn() * (high - low) + low).clamp(0, 1)

    def drawn(self) -> torch.Tensor:
        """Equation 10."""
        if not self.training:
            return self.openness.sigmoid()
        noise = torch.rand_like(self.openness).clamp(1e-6, 1 - 1e-6)
        return ((noise.logit() + self.openness) / BETA).sigmoid()

    def open(self) -> torch.Tensor:
        """The expected number of gates that are not zero (equation 12)."""
        low, high = REACH
        return (self.openness - BETA * math.log(-low / high)).sigmoid().sum()


def hang(holders: list[nn.Module], regrow: bool = False, gated: bool = False) -> Cut:
    """A cut, behind gates where asked for, on one weight, which several layers may share. Its mask
    lets everything through.
    """
    weight = holders[0].weight.detach()
    cut, gates = Cut(weight, regrow), Gates(weight) if gated else None
    for module in holders:
        for each in (gates, cut):
            if each is not None:
                parametrize.register_parametrization(module, "weight", each)
    return cut


def gates_of(module: nn.Module) -> Gates | None:
    return next((each for each in module.parametrizations.weight if isinstance(each, Gates)), None)


def before_cut(module: nn.Module) -> torch.Tensor:
    """The weight with its gates, but whole."""
    held, gates = module.parametrizations.weight.original.detach(), gates_of(module)
    return held if gates is None else gates(held).detach()
