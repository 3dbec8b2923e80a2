"""A whole model that takes the place of another: a student, or the same one after it was
trained.
"""

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
    """Dense, in float32, sharing nothing with files or other models: it may learn in place."""

    model: nn.Module
    source: ModelSource  # whose tokenizer or image processor goes with it, and whose config.json
    dtype: torch.dtype  # that its weights are written in
    pruning_plan: PruningPlan = field(
        default_factory=PruningPlan
    )  # what of the subject it began as
    # fields of its config.json, where those are not the source's
    config: dict[str, Any] = field(default_factory=dict)
    # layer -> the subject's layer that it began as
    homes: dict[str, str] = field(default_factory=dict)
    initial_weights_note: str = ""  # why layers without such a home have none: a note

    def layers(self) -> list[Layer]:
        """Layers as they will be written."""
        size, name = self.dtype.itemsize, str(self.dtype).removeprefix("torch.")
        return [replace(layer, itemsize=size, dtype=name) for layer in layers_of(self.model)]

    def stored_weight(self, name: str) -> DenseWeight:
        weight = weight_matrix(self.model.get_submodule(name)).to("cpu", self.dtype).contiguous()
        return DenseWeight(tuple(weight.shape), weight)

    def plain(self, device: str = "cpu") -> dict[str, torch.Tensor]:
        """Norms with their statistics, biases, positions: everything that is no layer's weight, as
        it will be written.
        """
        tensors = plain_tensors(self.model)
        return {
            name: value.to(device, self.dtype if value.is_floating_point() else None, copy=True)
            for name, value in tensors.items()
        }
