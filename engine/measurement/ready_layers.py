"""Layers whose weights are dense and ready in the precision in which they compute."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from engine.models.loaded_model import Opened
from engine.models.packed_modules import Unpacking
from engine.tensors.weights import Dense


def ready_layers(opened: Opened, names: Iterable[str] = ()) -> dict[str, nn.Module]:
    """Layers, all of them unless named, whose weights are dense in the precision in which they
    compute. Tied ones share theirs.
    """
    made: dict[int, Dense] = {}
    modules = {
        name: module
        for name, module in opened.model.named_modules()
        if isinstance(module, Unpacking) and (not names or name in names)
    }
    return {name: with_weight(module, module.compute, made) for name, module in modules.items()}


def with_weight(
    module: Unpacking, dtype: torch.dtype, made: dict[int, Dense] | None = None
) -> Unpacking:
    """``module`` with its weight and bias ready in that precision. What its inputs were rounded to
    is gone with the stored weight.
    """
    other, made = copy.copy(module), {} if made is None else made
    # the copy would share the table that the bias stands in
    other._parameters = {
        name: None if value is None else nn.Parameter(value.to(dtype), False)
        for name, value in module._parameters.items()
    }
    key = id(module.stored)
    if key not in made:
        made[key] = Dense(module.stored.shape, module.stored.dense(dtype))
    other.stored, other.compute = made[key], dtype
    return other


@contextmanager
def replaced(model: nn.Module, modules: dict[str, nn.Module]) -> Iterator[None]:
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
