"""New weights with which a model computes the same function."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from engine.models.loaded_model import LoadedModel, shared_copy
from engine.models.model_source import ModelSource
from engine.step.pruning_plan import original_dtype
from engine.tensors.weights import DenseWeight


@dataclass(frozen=True)
class EquivalentWeights:
    """Changed tensors by name; all others stay as they are."""

    # layer -> weight, (out, in_); for tied layers, the one that holds the tensor
    layers: Mapping[str, torch.Tensor] = field(default_factory=dict)
    # norms with their statistics, biases, positions
    plain: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def apply(
        self, original: LoadedModel, folder: ModelSource, compute: torch.dtype
    ) -> LoadedModel:
        """Model with these tensors, each in the dtype of the one it replaces. ``original`` is
        unchanged and shares all other tensors.

        Raises ValueError for a tensor that the model does not have, or one of another shape.
        """
        untied = {layer.name: layer for layer in original.layers if not layer.tied_to}
        for name, weight in self.layers.items():
            refuse_other_shape(name, weight, untied[name].matrix_shape if name in untied else ())
        for name, value in self.plain.items():
            refuse_other_shape(name, value, tuple(getattr(original.plain.get(name), "shape", ())))
        plain = {
            name: self.plain[name].to(value.device, value.dtype) if name in self.plain else value
            for name, value in original.plain.items()
        }
        model = shared_copy(folder, replace(original, plain=plain), compute)
        modules = dict(model.named_modules())
        for name, weight in self.layers.items():
            current = modules[name].stored
            weight = weight.to(original.device, original_dtype(untied[name], current)).contiguous()
            for tied in (
                name,
                *(layer.name for layer in original.tied_layers if layer.tied_to == name),
            ):
                modules[tied].stored = DenseWeight(tuple(weight.shape), weight)
        return replace(original, model=model, plain=plain)


def refuse_other_shape(name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(
            f"{name} was given with shape {tuple(tensor.shape)}; the model has "
            f"{shape or 'no such tensor'}. Give each tensor by its name, in its shape."
        )
