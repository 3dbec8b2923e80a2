"""A whole model that takes the place of another: a student, or the same one after it was trained."""

from dataclasses import dataclass, field, replace

import torch
from torch import nn

from engine.work.layers import Layer, layers_of, matrix
from engine.work.models import Folder
from engine.work.rebuilt import Rebuilt
from engine.work.stored.weights import Dense


@dataclass(frozen=True)
class Successor:
    """Dense, in float32, sharing nothing with files or other models: it may learn in place."""

    model: nn.Module
    source: Folder  # whose tokenizer or image processor goes with it, and whose config.json
    dtype: torch.dtype  # that its weights are written in
    small: Rebuilt = field(default_factory=Rebuilt)  # what of the subject it began as
    config: dict = field(default_factory=dict)  # fields of its config.json, where those are not the source's
    homes: dict[str, str] = field(default_factory=dict)  # layer -> the subject's layer that it began as
    begins: str = ""  # why layers without such a home have none: a note

    def layers(self) -> list[Layer]:
        """As they will be written."""
        size, name = self.dtype.itemsize, str(self.dtype).removeprefix("torch.")
        return [replace(layer, itemsize=size, dtype=name) for layer in layers_of(self.model)]

    def stored(self, name: str) -> Dense:
        weight = matrix(self.model.get_submodule(name)).to("cpu", self.dtype).contiguous()
        return Dense(tuple(weight.shape), weight)

    def plain(self, device: str = "cpu") -> dict[str, torch.Tensor]:
        """Norms with their statistics, biases, positions: everything that is no layer's weight, as it will be written."""
        weights = {f"{layer.name}.weight" for layer in layers_of(self.model)}
        held = {name: value.detach() for name, value in self.model.state_dict().items() if name not in weights}
        return {name: value.to(device, self.dtype if value.is_floating_point() else None, copy=True) for name, value in held.items()}
