"""The dense model that is trained: the weights of some layers, norms and biases. All other tensors
are fixed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.models.layers import Layer
from engine.models.loaded_model import LoadedModel, packed_model
from engine.models.loading import load_pretrained
from engine.models.model_source import ModelSource
from engine.training.masks import WeightMask, attach_mask, unmasked_weight


@dataclass
class TrainableModel:
    """Dense float32 model on its device. Matrices are read and written as (out, in_)."""

    model: nn.Module
    original: LoadedModel
    layers: list[Layer]  # layers that are trained
    masks: dict[str, WeightMask] = field(default_factory=dict)

    def attach_masks(self, regrow: bool = False, gated: bool = False) -> None:
        """Attach a mask to every trained layer."""
        for layer in self.layers:
            names = [
                layer.name,
                *(other.name for other in self.original.layers if other.tied_to == layer.name),
            ]
            self.masks[layer.name] = attach_mask(
                [self.model.get_submodule(name) for name in names], regrow, gated
            )

    def unmasked_weight(self, name: str) -> torch.Tensor:
        """A weight without its mask but with its gates. (out, in_)"""
        module = self.model.get_submodule(name)
        return matrix_view(module, unmasked_weight(module))

    @torch.no_grad()
    def weight(self, name: str) -> torch.Tensor:
        """Weight as the forward pass uses it, (out, in_)."""
        module = self.model.get_submodule(name)
        return matrix_view(module, module.weight.detach())

    def mask(self, name: str) -> torch.Tensor:
        return matrix_view(self.model.get_submodule(name), self.masks[name].mask)

    def set_mask(self, name: str, mask: torch.Tensor) -> None:
        matrix_view(self.model.get_submodule(name), self.masks[name].mask).copy_(mask)

    def state(self) -> dict[str, torch.Tensor]:
        """Copy of all trained tensors, to restore."""
        return {
            name: value.detach().clone()
            for name, value in self.model.state_dict().items()
            if name not in self.frozen_names
        }

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.model.load_state_dict(state, strict=False)

    @property
    def frozen_names(self) -> set[str]:
        """Set the weights of layers that are not trained."""
        learning = {layer.name for layer in self.layers}
        return {
            f"{layer.name}.weight" for layer in self.original.layers if layer.name not in learning
        }

    def plain(self) -> dict[str, torch.Tensor]:
        """Norms with their statistics and biases, in the dtypes of the file."""
        tensors = self.model.state_dict()
        return {
            name: tensors[name].detach().to("cpu", value.dtype, copy=True)
            for name, value in self.original.plain.items()
        }


def matrix_view(module: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    """A view, output channels first.  (out, in_)"""
    return tensor.T if isinstance(module, Conv1D) else tensor.flatten(1)


def make_trainable(
    folder: ModelSource, original: LoadedModel, layers: list[Layer], device: torch.device
) -> TrainableModel:
    """Model that shares nothing with the files or with ``original``."""
    model = unshare_tensors(
        load_pretrained(folder) if not folder.packed else load_packed_weights(folder, original),
        device,
    )
    learning = {f"{layer.name}.weight" for layer in layers} | original.plain.keys()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learning)
    return TrainableModel(model, original, layers)


def load_packed_weights(folder: ModelSource, original: LoadedModel) -> nn.Module:
    """A model of other shapes than its configuration says."""
    model, stored, plain = packed_model(folder)
    weights = {
        f"{name}.weight": as_module_weight(
            model.get_submodule(name), weight.to_dense(torch.float32)
        )
        for name, weight in stored.items()
    }
    model.load_state_dict(plain | weights, strict=False, assign=True)
    model.tie_weights()
    return model


def as_module_weight(module: nn.Module, matrix: torch.Tensor) -> torch.Tensor:
    """Weight in the module's own layout, from (out, in_)."""
    return matrix.T.contiguous() if isinstance(module, Conv1D) else matrix.view(module.weight.shape)


def unshare_tensors(model: nn.Module, device: torch.device) -> nn.Module:
    def own_tensor(value: torch.Tensor) -> torch.Tensor:
        return value.to(
            device, torch.float32 if value.is_floating_point() else value.dtype, copy=True
        )

    copy_tensor: Callable[[torch.Tensor], torch.Tensor] = own_tensor
    for parameter in model.parameters():
        parameter.data = copy_tensor(parameter.data)
    for module in model.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else copy_tensor(buffer)
    return model
