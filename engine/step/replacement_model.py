"""A whole model that replaces another: a student, or the same model after training."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from engine.models.layers import Layer, layers_of, plain_tensors, weight_matrix
from engine.models.loading import ModelSource
from engine.step.pruning_plan import PruningPlan
from engine.tensors.weights import DenseWeight


@dataclass(frozen=True)
class ReplacementModel:
    """Dense model in float32 that shares nothing with files or other models, so it can be trained
    in place.
    """

    model: nn.Module
    source: ModelSource  # source of the tokenizer or image processor and of config.json
    dtype: torch.dtype  # dtype in which its weights are written
    pruning_plan: PruningPlan = field(
        default_factory=PruningPlan
    )  # the part of the original from which it started
    # fields of its config.json that differ from the source's
    config: dict[str, Any] = field(default_factory=dict)
    # layer -> the original's layer from which it started
    source_layers: dict[str, str] = field(default_factory=dict)
    initial_weights_note: str = ""  # note on layers that started from no layer of the original

    def layers(self) -> list[Layer]:
        """Layers in the dtype in which they are written."""
        size, name = self.dtype.itemsize, str(self.dtype).removeprefix("torch.")
        return [replace(layer, itemsize=size, dtype=name) for layer in layers_of(self.model)]

    def stored_weight(self, name: str) -> DenseWeight:
        weight = weight_matrix(self.model.get_submodule(name)).to("cpu", self.dtype).contiguous()
        return DenseWeight(tuple(weight.shape), weight)

    def plain(self, device: str = "cpu") -> dict[str, torch.Tensor]:
        """All tensors that are no layer's weight, such as norms with their statistics, biases and
        positions, in the dtype in which they are written.
        """
        tensors = plain_tensors(self.model)
        return {
            name: value.to(device, self.dtype if value.is_floating_point() else None, copy=True)
            for name, value in tensors.items()
        }
