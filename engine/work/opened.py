"""A model ready to run: its layers hold their weights as stored and unpack them where the run computes."""

from dataclasses import dataclass

import torch
from torch import nn

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.work.layers import Layer, layers_of
from engine.work.models import Folder, load, skeleton
from engine.work.stored.files import read_packed
from engine.work.stored.modules import install
from engine.work.stored.shapes import fit


@dataclass(frozen=True)
class Opened:
    model: nn.Module
    layers: list[Layer]
    plain: dict[str, torch.Tensor]  # what belongs to no layer's weight (norms, biases, positions), as in the file
    device: torch.device

    def held_bytes(self, layer: Layer) -> int:
        """Of a layer's weight as it is stored now."""
        return self.model.get_submodule(layer.name).stored.nbytes

    @property
    def parameters(self) -> int:
        """Each tied tensor once."""
        return sum(layer.parameters for layer in self.layers if not layer.tied_to) + sum(value.numel() for value in self.plain.values())


def compute_place(recipe: Recipe) -> tuple[torch.device, torch.dtype]:
    """Where and in what precision the recipe computes: by default a GPU in bfloat16 where there is one, else the CPU in float32."""
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise PlainError("The recipe asks for device cuda, but no CUDA device is usable here; set device to cpu or auto.")
    device = "cuda" if recipe.device != "cpu" and torch.cuda.is_available() else "cpu"
    default = torch.bfloat16 if device == "cuda" else torch.float32
    return torch.device(device), default if recipe.dtype == "auto" else getattr(torch, recipe.dtype)


def calibration_dtype(recipe: Recipe) -> torch.dtype:
    """Calibration data may run in bfloat16 where the processor multiplies it quickly: what is rounded stays float32."""
    device, compute = compute_place(recipe)
    return torch.bfloat16 if device.type == "cpu" and multiplies_bfloat16(device) and recipe.dtype == "auto" else compute


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether it does so quicker than float32."""
    return device.type == "cuda" or (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def opened(folder: Folder, device: torch.device, compute: torch.dtype) -> Opened:
    """Original and packed models alike. Weights stay mapped to their files where they are stored as they compute."""
    stored, plain = read_packed(folder.path) if folder.packed else ({}, {})
    model = fit(skeleton(folder), stored, plain) if folder.packed else load(folder)
    model.load_state_dict(plain, strict=False, assign=True)
    layers = layers_of(model)
    weights = {f"{layer.name}.weight" for layer in layers}
    plain = plain or {name: value for name, value in model.state_dict().items() if name not in weights}
    return Opened(install(model, stored, compute, device), layers, plain, device)
