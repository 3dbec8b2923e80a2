"""Rounding in the forward pass and identity in the backward pass: the straight-through estimator
(Bengio et al. 2013, arXiv:1308.3432), and trained step sizes (LSQ, Esser et al. 2020,
arXiv:1902.08153).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from engine.techniques.quantization.grid import Levels, dequantize, quantize

# steps: a weight at most half a step beyond the outermost level is rounded, not clipped; 16-bit
# scales may be off a little
CLIP_TOLERANCE = 0.6


class StraightThrough(torch.autograd.Function):
    """``rounded`` bit by bit, with the gradients of ``value``."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        return rounded.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


class RoundToLevels(torch.autograd.Function):
    """Fake-quantized weights s (clip(round(w/s + z)) - z), with gradients with respect to weights
    and steps.

    Weight: 1 inside the range, 0 outside (equation 5). Step: round(w/s) - w/s inside, the outermost
    level outside (equation 3). All tensors are (out, in_) or broadcast to it. ``beyond``: end of
    the range, in steps from the outermost level.
    """

    @staticmethod
    def forward(
        ctx: Any,
        weight: torch.Tensor,
        steps: torch.Tensor,
        zeros: torch.Tensor,
        levels: Levels,
        beyond: float = 0.0,
    ) -> torch.Tensor:
        codes = quantize(weight, steps, zeros, levels)
        ctx.save_for_backward(weight, steps, zeros, codes)
        ctx.range = levels.lowest - beyond, levels.highest + beyond
        return dequantize(codes, steps, zeros)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, steps, zeros, codes = ctx.saved_tensors
        positions = weight / steps + zeros
        is_inside = (positions > ctx.range[0]) & (positions < ctx.range[1])
        by_step = (
            (gradient * torch.where(is_inside, codes - positions, codes - zeros)).sum_to_size(
                steps.shape
            )
            if ctx.needs_input_grad[1]
            else None
        )
        return gradient * is_inside, by_step, None, None, None


def scaled_gradient(value: torch.Tensor, factor: float) -> torch.Tensor:
    """Return ``value``; its gradient is multiplied by ``factor`` (LSQ, section 2.2)."""
    if value.requires_grad:
        value.register_hook(lambda gradient: gradient * factor)
    return value


def quantize_module_inputs(
    module: nn.Module, quantized_inputs: Callable[[torch.Tensor], torch.Tensor]
) -> RemovableHandle:
    """Quantize a module's inputs as the stored layer will; gradients pass straight through."""
    # stored as a convolution of height 1
    one_axis = isinstance(getattr(module, "base_layer", module), nn.Conv1d)

    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            rounded = (
                quantized_inputs(inputs[0].unsqueeze(-2)).squeeze(-2)
                if one_axis
                else quantized_inputs(inputs[0])
            )
        return StraightThrough.apply(inputs[0], rounded), *inputs[1:]

    return module.register_forward_pre_hook(hook)
