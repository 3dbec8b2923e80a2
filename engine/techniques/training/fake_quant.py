"""Weights that the forward pass sees as they would be stored. They hang on a layer's weight as
parametrizations.
"""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from engine.calibration import Seen
from engine.models.layers import Layer
from engine.techniques.hooks import compress
from engine.techniques.quantization.activations.config import Activations
from engine.techniques.quantization.activations.method import static_range
from engine.techniques.quantization.fixed_levels.method import absmean, binary_codes, ternary_codes
from engine.techniques.quantization.grid import (
    Levels,
    group_width,
    grouped,
    qparams_of_weight,
    shared_rows,
    storable,
    stored_codes,
)
from engine.techniques.training.qat.config import QAT, BitNet
from engine.techniques.training.straight_through import (
    NEAR,
    OnLevels,
    StraightThrough,
    shrunk_slope,
)
from engine.tensors.activations import WithActivations
from engine.tensors.sparse_codes import keeping_zeros
from engine.tensors.weights import Dense, Stored
from engine.training import Pupil

Range = dict[str, torch.Tensor]  # scale and zero code, (1,) each
NO_WEIGHT = Dense((0, 0), torch.empty(0, 0))  # where only what becomes of inputs matters
LEAST = 1e-3  # of what a step began as; it does not learn to be nothing


class Rounded(nn.Module):
    """One weight on its way to being stored. Zeros of an earlier step stay zero, and do not
    learn.
    """

    def __init__(
        self,
        how: QAT | BitNet,
        module: nn.Module,
        left: torch.Tensor | None,
        fixed: Range | None = None,
    ):
        """``left``: (out, in_) bool, where weights are left; ``fixed``: the range of what the layer
        gets, where that was chosen beforehand
        """
        super().__init__()
        self.how, self.turned, self.fixed = how, isinstance(module, Conv1D), fixed
        self.register_buffer("left", left)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        values = self.values(self.sieved(self.flat(weight)))
        return self.sieved(values).T if self.turned else self.sieved(values).view_as(weight)

    def flat(self, weight: torch.Tensor) -> torch.Tensor:
        """(out, in_)"""
        return weight.T.contiguous() if self.turned else weight.flatten(1)

    def sieved(self, weight: torch.Tensor) -> torch.Tensor:
        return weight if self.left is None else weight.masked_fill(~self.left, 0)

    def values(self, weight: torch.Tensor) -> torch.Tensor:
        """(out, in_) as it will be stored"""
        raise NotImplementedError

    def plainly_stored(self, weight: torch.Tensor) -> Stored:
        raise NotImplementedError

    @torch.no_grad()
    def stored(self, weight: torch.Tensor) -> Stored:
        """Trained weight as it is stored, bit-exact. weight: as the module holds it"""
        stored = self.plainly_stored(self.sieved(self.flat(weight)).contiguous())
        stored = (
            stored if self.left is None or self.left.all() else keeping_zeros(stored, ~self.left)
        )
        return with_rounded_inputs(self.how, stored, self.fixed)


class RoundedOnGrid(Rounded):
    """On an even grid, whose steps are chosen again each time as round-to-nearest does it, or learn
    from there on (LSQ).

    Steps that learn do so as multiples of what they were at first: the optimizer moves every number
    by the rate, whatever its size.
    """

    def __init__(
        self, how: QAT, module: nn.Module, left: torch.Tensor | None, fixed: Range | None = None
    ):
        super().__init__(how, module, left, fixed)
        self.levels = Levels.of(how)
        if how.learn_scales:
            weight = self.flat(module.weight.detach())
            scales, zeros = qparams_of_weight(weight, how)
            self.register_buffer("first", scales)
            self.register_buffer("zeros", zeros)
            self.multiples = nn.Parameter(torch.ones(scales.numel(), device=scales.device))
            self.share = 1 / math.sqrt(weight.numel() / scales.numel() * self.levels.highest)

    def qparams(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scales as they will be stored and zero codes, as ``qparams_of_weight``."""
        if not self.how.learn_scales:
            with torch.no_grad():
                return qparams_of_weight(weight, self.how)
        steps = shrunk_slope(
            self.first * self.multiples.clamp_min(LEAST).view_as(self.first), self.share
        )
        return StraightThrough.apply(steps, storable(steps.detach())), self.zeros

    def values(self, weight: torch.Tensor) -> torch.Tensor:
        scales, zeros = (self.spread(each, weight.shape) for each in self.qparams(weight))
        return OnLevels.apply(
            weight, scales, zeros, self.levels, 0.0 if self.how.learn_scales else NEAR
        )

    def spread(self, params: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """One for each weight, or for each row where that is all.  (bands, groups) -> (out, in_) or
        what broadcasts to it
        """
        out, in_ = shape
        if params.shape[1] > 1:
            params = (
                params[:, :, None].expand(-1, -1, group_width(self.how, in_)).flatten(1)[:, :in_]
            )
        rows = shared_rows(self.how, out)
        return params if rows is None else params[:, None].expand(-1, rows, -1).flatten(0, 1)[:out]

    def plainly_stored(self, weight: torch.Tensor) -> Stored:
        return stored_codes(weight, self.how, *(each.detach() for each in self.qparams(weight)))

    def missed(self, weight: torch.Tensor) -> torch.Tensor:
        """Mean squared distance of the weights to their levels, in steps.  weight: as the module
        holds it
        """
        weight = self.sieved(self.flat(weight))
        steps = self.spread(self.qparams(weight)[0].detach(), weight.shape)
        return ((weight - self.values(weight).detach()) / steps).square().mean()


class RoundedToTable(Rounded):
    """Three values or two, times the mean magnitude of the weights that share it."""

    def values(self, weight: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            rounded = torch.cat([self.part(each) for each in grouped(weight, self.how)], 1)
        return StraightThrough.apply(weight, rounded.view_as(weight))

    def part(self, groups: torch.Tensor) -> torch.Tensor:
        """(out, groups, width) -> (out, groups * width)"""
        scale = absmean(groups)
        if self.how.values == "ternary":
            return ((ternary_codes(groups / scale).float() - 1) * scale).flatten(1)
        return ((binary_codes(groups / scale).float() * 2 - 1) * scale).flatten(1)

    def plainly_stored(self, weight: torch.Tensor) -> Stored:
        return compress(self.how.model_copy(update={"activation_bits": 0}), weight)


def with_rounded_inputs(how: QAT | BitNet, stored: Stored, fixed: Range | None = None) -> Stored:
    """The layer's inputs are rounded too, where that is asked for: with a range of its own, or one
    for each token, centered on zero (BitNet b1.58,
    section 2).
    """
    if not how.activation_bits:
        return stored
    scheme = "asymmetric" if fixed else "symmetric"
    return WithActivations(
        stored.shape, stored, how.activation_bits, scheme, "token", **fixed or {}
    )


def static(how: QAT | BitNet) -> bool:
    return bool(how.activation_bits) and how.activation_range == "static"


def fixed_range(how: QAT | BitNet, seen: Seen) -> Range:
    """Range that an observer chooses for a layer's inputs."""
    return static_range(
        Activations(activation_bits=how.activation_bits, observer=how.observer), seen
    )


def hang(
    pupil: Pupil,
    layer: Layer,
    how: QAT | BitNet,
    left: torch.Tensor | None,
    fixed: Range | None = None,
) -> Rounded:
    """On a layer, and on all that share its weight."""
    kind = RoundedOnGrid if isinstance(how, QAT) else RoundedToTable
    names = [
        layer.name,
        *(other.name for other in pupil.original.layers if other.tied_to == layer.name),
    ]
    modules = [pupil.model.get_submodule(name) for name in names]
    rounded = kind(how, modules[0], left, fixed)
    for module in modules:
        parametrize.register_parametrization(module, "weight", rounded)
        if how.activation_bits and not isinstance(module, nn.Embedding):
            round_inputs(module, with_rounded_inputs(how, NO_WEIGHT, fixed).received)
    return rounded


def round_inputs(
    module: nn.Module, received: Callable[[torch.Tensor], torch.Tensor]
) -> RemovableHandle:
    """The module gets its inputs as the layer that is stored will; gradients pass."""
    # which is stored as a convolution of height 1
    one_axis = isinstance(getattr(module, "base_layer", module), nn.Conv1d)

    def before(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            rounded = (
                received(inputs[0].unsqueeze(-2)).squeeze(-2) if one_axis else received(inputs[0])
            )
        return StraightThrough.apply(inputs[0], rounded), *inputs[1:]

    return module.register_forward_pre_hook(before)
