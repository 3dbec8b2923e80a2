"""A model ready to run. Its layers hold their weights as stored and unpack them on the device of
the run.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from engine.errors import PlainError
from engine.models.layers import Layer, layers_of, plain_tensors, text_reader
from engine.models.loading import ModelSource, load_pretrained_with_unused, meta_model
from engine.models.origin import Origin
from engine.models.packed_folder import read_origin, read_packed
from engine.models.packed_modules import install_packed_layers
from engine.models.routed_layers import split_experts
from engine.models.shapes import fit_shapes
from engine.models.shared_tensors import duplicate_bytes, entry_bytes, names_by_tensor
from engine.quantities import megabytes
from engine.recipe import Recipe
from engine.tensors.weights import DenseWeight, StoredWeight


@dataclass(frozen=True)
class LoadedModel:
    model: nn.Module
    layers: list[Layer]
    # tensors outside of layers' weights (norms, biases, positions), in the dtypes of the file
    plain: dict[str, torch.Tensor]
    device: torch.device
    size_bytes: int = 0  # of the weight files; repeated tensors count once
    recorded_origin: Origin | None = None  # counts of the original, recorded in a compressed folder
    notes: tuple[str, ...] = ()  # notes on its files, one sentence each

    @cached_property
    def origin(self) -> Origin:
        """Counts of the original model: recorded ones, or its own if it is an original or has no
        record.
        """
        untied = [layer for layer in self.layers if not layer.tied_to]
        stored = {
            layer.name: layer.parameters
            for layer in untied
            if not isinstance(self.model.get_submodule(layer.name).stored, DenseWeight)
        }
        return self.recorded_origin or Origin(self.parameters, stored)

    @cached_property
    def tied_layers(self) -> list[Layer]:
        """Layers whose tensor another one holds; few, also in models with 20,000 expert layers."""
        return [layer for layer in self.layers if layer.tied_to]

    def original_parameters(self, layer: Layer) -> int:
        """Number of parameters of this layer in the original model."""
        return self.origin.compressed.get(layer.tied_to or layer.name, layer.parameters)

    def stored_bytes(self, layer: Layer) -> int:
        """Bytes of a layer's weight as currently stored."""
        return self.model.get_submodule(layer.name).stored.nbytes

    @property
    def parameters(self) -> int:
        """Number of parameters, counting tied tensors once."""
        return sum(layer.parameters for layer in self.layers if not layer.tied_to) + sum(
            value.numel() for value in self.plain.values()
        )


def other_parts_notes(original: LoadedModel) -> list[str]:
    """Note on the parts of a multimodal model besides its language model; none for other models."""
    reads_text = text_reader(original.model)
    count = sum(layer.parameters for layer in original.layers if not layer.reads_text)
    size = sum(layer.original_bytes for layer in original.layers if not layer.reads_text)
    for name, value in original.plain.items():
        if not reads_text(name):
            count, size = count + value.numel(), size + value.nbytes
    if not count:
        return []
    return [
        "Only the language model is compressed and measured, on text. The parts for images or "
        f"sound are unchanged: {count:,} of {original.parameters:,} parameters, {size:,} bytes "
        "of the model's files."
    ]


def device_and_dtype(recipe: Recipe) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of the recipe: by default a CUDA GPU in bfloat16 if there is one, otherwise
    the CPU in float32. Apple's GPU (MPS), which lacks float64, is used only on request.
    """
    usable = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if recipe.device in usable and not usable[recipe.device]():
        raise PlainError(
            f"The recipe asks for device {recipe.device}, but no {recipe.device.upper()} device "
            "is usable here; set device to cpu or auto."
        )
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    device = automatic if recipe.device == "auto" else recipe.device
    default = torch.bfloat16 if device == "cuda" else torch.float32
    return torch.device(device), default if recipe.dtype == "auto" else getattr(torch, recipe.dtype)


def calibration_dtype(recipe: Recipe) -> torch.dtype:
    """Dtype of calibration passes: bfloat16 if the processor multiplies it fast, since rounded
    weights stay float32.
    """
    device, compute = device_and_dtype(recipe)
    return (
        torch.bfloat16
        if device.type == "cpu" and multiplies_bfloat16(device) and recipe.dtype == "auto"
        else compute
    )


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return True if the device multiplies bfloat16 faster than float32."""
    return device.type == "cuda" or (
        torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def packed_model(
    folder: ModelSource,
) -> tuple[nn.Module, dict[str, StoredWeight], dict[str, torch.Tensor]]:
    """Compressed model without values but with the shapes of its files, and their contents: stored
    layers and all other tensors.
    """
    model = meta_model(folder)
    stored, plain = read_packed(folder.path)
    experts, plain = split_experts(model, plain)
    stored |= {name: DenseWeight(tuple(weight.shape), weight) for name, weight in experts.items()}
    return fit_shapes(model, stored, plain), stored, plain


def load_model(folder: ModelSource, device: torch.device, compute: torch.dtype) -> LoadedModel:
    """Load an original or compressed model. Weights stay memory-mapped if they are stored in the
    dtype of computation.
    """
    (model, stored, plain), unused = (
        (packed_model(folder), {}) if folder.packed else original_model(folder)
    )
    model.load_state_dict(tensors_under_all_names(model, plain), strict=False, assign=True)
    if folder.packed:
        model.tie_weights()  # tensors that the file contains under one name only
    layers, again = layers_of(model), {} if folder.packed else duplicate_bytes(folder, model)
    weights = {f"{layer.name}.weight" for layer in layers}
    plain = {
        name: value
        for name, value in (plain or plain_tensors(model)).items()
        if name not in weights
    }
    notes = ((duplicates_note(again),) if again else ()) + (
        (unused_note(unused),) if unused else ()
    )
    size_bytes, origin = (
        folder.size_bytes - sum((again | unused).values()),
        read_origin(folder) if folder.packed else None,
    )
    return LoadedModel(
        install_packed_layers(model, stored, compute, device),
        layers,
        plain,
        device,
        size_bytes,
        origin,
        notes,
    )


def original_model(
    folder: ModelSource,
) -> tuple[tuple[nn.Module, dict[str, Any], dict[str, Any]], dict[str, int]]:
    """Like ``packed_model``, with the bytes of tensors in the files that the model does not use."""
    model, names = load_pretrained_with_unused(folder)
    return (model, {}, {}), entry_bytes(folder, set(names))


def shared_copy(folder: ModelSource, original: LoadedModel, compute: torch.dtype) -> nn.Module:
    """Copy of the model that computes in another dtype on the device of ``original`` and shares its
    stored layers. A file that transformers converts while reading would otherwise use its memory
    twice.
    """
    stored = {
        layer.name: original.model.get_submodule(layer.name).stored
        for layer in original.layers
        if not layer.tied_to
    }
    model = fit_shapes(meta_model(folder), stored, original.plain)
    model.load_state_dict(tensors_under_all_names(model, original.plain), strict=False, assign=True)
    return install_packed_layers(model, stored, compute, original.device)


def tensors_under_all_names(
    model: nn.Module, plain: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Tensors under all names that the model has for each. ``plain`` is not changed when a model's
    buffers are converted: load_state_dict(assign=True) would make its tensors the buffers.
    """
    return {
        name: plain[known].detach()
        for names in names_by_tensor(model)
        for known in names
        if known in plain
        for name in names
    }


def unused_note(unused: dict[str, int]) -> str:
    first, more = next(iter(unused)), f" and {len(unused) - 1} more" if len(unused) > 1 else ""
    return (
        f"The model does not use {first}{more} of its files "
        f"({megabytes(sum(unused.values()))}); sizes leave them out."
    )


def duplicates_note(again: dict[str, int]) -> str:
    first, more = next(iter(again)), f" and {len(again) - 1} more" if len(again) > 1 else ""
    return (
        f"The files contain {first}{more} twice "
        f"({megabytes(sum(again.values()))}); sizes count each tensor once."
    )
