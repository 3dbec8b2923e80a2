"""Weights that the forward pass computes with as they would be stored, attached to layers as
parametrizations.
"""

import math

import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers.pytorch_utils import Conv1D

from engine.calibration import InputStats
from engine.models.layers import Layer
from engine.techniques.hooks import compress
from engine.techniques.quantization.activations.config import Activations
from engine.techniques.quantization.activations.method import static_range
from engine.techniques.quantization.fixed_levels.method import absmean, binary_codes, ternary_codes
from engine.techniques.quantization.grid import (
    Levels,
    group_width,
    nearest_float16,
    qparams_of_weight,
    quantize_to_grid,
    scale_groups,
    shared_rows,
)
from engine.techniques.training.qat.config import QAT, BitNet
from engine.techniques.training.straight_through import (
    CLIP_TOLERANCE,
    RoundToLevels,
    StraightThrough,
    quantize_module_inputs,
    scaled_gradient,
)
from engine.tensors.activations import WithQuantizedInputs
from engine.tensors.sparse_codes import preserve_zeros
from engine.tensors.weights import DenseWeight, StoredWeight
from engine.training import TrainableModel

Range = dict[str, torch.Tensor]  # scale and zero code, (1,) each
NO_WEIGHT = DenseWeight((0, 0), torch.empty(0, 0))  # if only the quantization of inputs matters
MIN_STEP_MULTIPLE = 1e-3  # relative to its initial value; a trained step must not become zero


class FakeQuant(nn.Module):
    """Fake quantization of one weight. Zeros of an earlier step stay zero and are not trained."""

    def __init__(
        self,
        config: QAT | BitNet,
        module: nn.Module,
        left: torch.Tensor | None,
        fixed: Range | None = None,
    ):
        """``left``: (out, in_) bool, remaining weights; ``fixed``: range of the layer's inputs, if
        it was chosen before training
        """
        super().__init__()
        self.config, self.turned, self.fixed = config, isinstance(module, Conv1D), fixed
        self.register_buffer("left", left)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        values = self.values(self.zero_masked(self.flat(weight)))
        return (
            self.zero_masked(values).T if self.turned else self.zero_masked(values).view_as(weight)
        )

    def flat(self, weight: torch.Tensor) -> torch.Tensor:
        """(out, in_)"""
        return weight.T.contiguous() if self.turned else weight.flatten(1)

    def zero_masked(self, weight: torch.Tensor) -> torch.Tensor:
        return weight if self.left is None else weight.masked_fill(~self.left, 0)

    def values(self, weight: torch.Tensor) -> torch.Tensor:
        """Stored weight, (out, in_)."""
        raise NotImplementedError

    def stored_without_mask(self, weight: torch.Tensor) -> StoredWeight:
        raise NotImplementedError

    @torch.no_grad()
    def stored_weight(self, weight: torch.Tensor) -> StoredWeight:
        """Trained weight as stored, bit-exact. weight: in the module's own layout"""
        stored = self.stored_without_mask(self.zero_masked(self.flat(weight)).contiguous())
        stored = (
            stored if self.left is None or self.left.all() else preserve_zeros(stored, ~self.left)
        )
        return with_quantized_inputs(self.config, stored, self.fixed)


class GridFakeQuant(FakeQuant):
    """Uniform grid. Scales are recomputed in each forward pass as in rounding to nearest, or
    trained (LSQ). Trained scales are multiples of their initial values, because the optimizer's
    steps do not depend on a parameter's size.
    """

    def __init__(
        self, config: QAT, module: nn.Module, left: torch.Tensor | None, fixed: Range | None = None
    ):
        super().__init__(config, module, left, fixed)
        self.levels = Levels.of(config)
        if config.learn_scales:
            weight = self.flat(module.weight.detach())
            scales, zeros = qparams_of_weight(weight, config)
            self.register_buffer("first", scales)
            self.register_buffer("zeros", zeros)
            self.multiples = nn.Parameter(torch.ones(scales.numel(), device=scales.device))
            self.share = 1 / math.sqrt(weight.numel() / scales.numel() * self.levels.highest)

    def qparams(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scales as they will be stored and zero codes, as ``qparams_of_weight``."""
        if not self.config.learn_scales:
            with torch.no_grad():
                return qparams_of_weight(weight, self.config)
        steps = scaled_gradient(
            self.first * self.multiples.clamp_min(MIN_STEP_MULTIPLE).view_as(self.first), self.share
        )
        return StraightThrough.apply(steps, nearest_float16(steps.detach())), self.zeros

    def values(self, weight: torch.Tensor) -> torch.Tensor:
        scales, zeros = (
            self.expand_to_weights(params, weight.shape) for params in self.qparams(weight)
        )
        return RoundToLevels.apply(
            weight, scales, zeros, self.levels, 0.0 if self.config.learn_scales else CLIP_TOLERANCE
        )

    def expand_to_weights(self, params: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Scales for each weight, or for each row if that is sufficient. (bands, groups) -> (out,
        in_) or a shape that broadcasts to it
        """
        out, in_ = shape
        if params.shape[1] > 1:
            params = (
                params[:, :, None].expand(-1, -1, group_width(self.config, in_)).flatten(1)[:, :in_]
            )
        rows = shared_rows(self.config, out)
        return params if rows is None else params[:, None].expand(-1, rows, -1).flatten(0, 1)[:out]

    def stored_without_mask(self, weight: torch.Tensor) -> StoredWeight:
        return quantize_to_grid(
            weight, self.config, *(params.detach() for params in self.qparams(weight))
        )

    def quantization_error(self, weight: torch.Tensor) -> torch.Tensor:
        """Mean squared distance of the weights from their levels, in steps. weight: in the module's
        own layout
        """
        weight = self.zero_masked(self.flat(weight))
        steps = self.expand_to_weights(self.qparams(weight)[0].detach(), weight.shape)
        return ((weight - self.values(weight).detach()) / steps).square().mean()


class TableFakeQuant(FakeQuant):
    """Ternary or binary weights times the mean magnitude of their group."""

    def values(self, weight: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            rounded = torch.cat(
                [self.rounded_groups(group) for group in scale_groups(weight, self.config)], 1
            )
        return StraightThrough.apply(weight, rounded.view_as(weight))

    def rounded_groups(self, groups: torch.Tensor) -> torch.Tensor:
        """(out, groups, width) -> (out, groups * width)"""
        scale = absmean(groups)
        if self.config.values == "ternary":
            return ((ternary_codes(groups / scale).float() - 1) * scale).flatten(1)
        return ((binary_codes(groups / scale).float() * 2 - 1) * scale).flatten(1)

    def stored_without_mask(self, weight: torch.Tensor) -> StoredWeight:
        return compress(self.config.model_copy(update={"activation_bits": 0}), weight)


def with_quantized_inputs(
    config: QAT | BitNet, stored: StoredWeight, fixed: Range | None = None
) -> StoredWeight:
    """Quantize the layer's inputs too, if configured: with a fixed range, or one for each token,
    centered on zero (BitNet b1.58, section 2).
    """
    if not config.activation_bits:
        return stored
    scheme = "asymmetric" if fixed else "symmetric"
    return WithQuantizedInputs(
        stored.shape, stored, config.activation_bits, scheme, "token", **fixed or {}
    )


def has_static_range(config: QAT | BitNet) -> bool:
    return bool(config.activation_bits) and config.activation_range == "static"


def fixed_range(config: QAT | BitNet, stats: InputStats) -> Range:
    """Range that an observer chooses for a layer's inputs."""
    return static_range(
        Activations(activation_bits=config.activation_bits, observer=config.observer), stats
    )


def attach_fake_quant(
    trainable: TrainableModel,
    layer: Layer,
    config: QAT | BitNet,
    remaining_mask: torch.Tensor | None,
    fixed: Range | None = None,
) -> FakeQuant:
    """Attach to a layer, and to all that share its weight."""
    kind = GridFakeQuant if isinstance(config, QAT) else TableFakeQuant
    names = [
        layer.name,
        *(other.name for other in trainable.original.layers if other.tied_to == layer.name),
    ]
    modules = [trainable.model.get_submodule(name) for name in names]
    rounded = kind(config, modules[0], remaining_mask, fixed)
    for module in modules:
        parametrize.register_parametrization(module, "weight", rounded)
        if config.activation_bits and not isinstance(module, nn.Embedding):
            quantize_module_inputs(
                module, with_quantized_inputs(config, NO_WEIGHT, fixed).quantized_inputs
            )
    return rounded
