"""Rounding forward, gradients backward: as the papers' formulas have it, on small tensors."""

import pytest
import torch

from engine.techniques.quantization.grid import Levels
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.techniques.training.straight_through import (
    RoundToLevels,
    StraightThrough,
)
from tests.cases import for_each


def test_a_straight_through_value_is_the_rounded_one_with_the_whole_ones_slope():
    value = torch.randn(50, requires_grad=True)
    rounded = (1e8 * torch.randn(50)).round()  # value + (rounded - value) would not give these back
    out = StraightThrough.apply(value, rounded)
    slope = torch.randn(50)
    out.backward(slope)
    assert torch.equal(out, rounded) and torch.equal(value.grad, slope)


@for_each("scheme", ["symmetric", "asymmetric"])
@for_each("bits", [2, 4, 8])
def test_slopes_on_levels_are_the_papers_equations(bits, scheme):
    """LSQ, equations 3 and 5, weight by weight; far beyond both ends, too."""
    levels = Levels.of(RoundToNearest(bits=bits, scheme=scheme))
    weight = torch.linspace(-3, 3, 401).requires_grad_()
    steps, zeros = (
        torch.full((401,), 0.017 * 2 ** (8 - bits)).requires_grad_(),
        torch.full((401,), 1.0 if scheme == "asymmetric" else 0.0),
    )
    slope = torch.randn(401, generator=torch.Generator().manual_seed(1))
    RoundToLevels.apply(weight, steps, zeros, levels).backward(slope)
    for w, s, z, g, by_weight, by_step in zip(
        *(each.tolist() for each in (weight, steps, zeros, slope, weight.grad, steps.grad)),
        strict=True,
    ):
        place = w / s + z
        inside = levels.lowest < place < levels.highest
        due = (
            round(place) - place
            if inside
            else (levels.lowest if place <= levels.lowest else levels.highest) - z
        )
        assert by_weight == pytest.approx(g if inside else 0.0, rel=1e-5)
        assert by_step == pytest.approx(g * due, rel=1e-3, abs=1e-3)


def test_a_step_that_weights_share_gets_the_sum_of_their_slopes():
    levels, draw = Levels.of(RoundToNearest(bits=3)), torch.Generator().manual_seed(2)
    weight, slope = torch.randn(4, 9, generator=draw), torch.randn(4, 9, generator=draw)
    each, shared = (
        torch.full((4, 9), 0.3).requires_grad_(),
        torch.full((4, 1), 0.3).requires_grad_(),
    )
    for steps in (each, shared):
        RoundToLevels.apply(weight, steps, torch.zeros(1, 1), levels).backward(slope)
    torch.testing.assert_close(shared.grad, each.grad.sum(1, keepdim=True))
