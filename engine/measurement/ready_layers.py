"""Layers with dense weights in the dtype of computation."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from engine.models.loaded_model import LoadedModel
from engine.models.packed_modules import Unpacking
from engine.tensors.weights import DenseWeight


def dense_layers(loaded: LoadedModel, names: Iterable[str] = ()) -> dict[str, nn.Module]:
    """Replace layers, by default all, by ones with dense weights in the dtype of computation. Tied
    layers share theirs.
    """
    dense_by_id: dict[int, DenseWeight] = {}
    modules = {
        name: module
        for name, module in loaded.model.named_modules()
        if isinstance(module, Unpacking) and (not names or name in names)
    }
    return {
        name: with_dense_weight(module, module.compute, dense_by_id)
        for name, module in modules.items()
    }


def with_dense_weight(
    module: Unpacking, dtype: torch.dtype, dense_weights: dict[int, DenseWeight] | None = None
) -> Unpacking:
    """``module`` with its weight and bias in the dtype of computation, without the rounding of its
    inputs that the stored weight defines.
    """
    other, dense_weights = copy.copy(module), {} if dense_weights is None else dense_weights
    # otherwise the copy would share the module's dictionary of parameters
    other._parameters = {
        name: None if value is None else nn.Parameter(value.to(dtype), False)
        for name, value in module._parameters.items()
    }
    key = id(module.stored)
    if key not in dense_weights:
        dense_weights[key] = DenseWeight(module.stored.shape, module.stored.to_dense(dtype))
    other.stored, other.compute = dense_weights[key], dtype
    return other


@contextmanager
def swap_modules(model: nn.Module, modules: dict[str, nn.Module]) -> Iterator[None]:
    before = {name: model.get_submodule(name) for name in modules}
    try:
        for name, module in modules.items():
            place(model, name, module)
        yield
    finally:
        for name, module in before.items():
            place(model, name, module)


def place(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
