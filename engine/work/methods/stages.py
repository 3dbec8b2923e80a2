"""The stages of a run that a method may implement, each pure in what it is given; chosen by the technique's type.

survey    what the method wants to know from data
plan      one frozen setting for each layer: where global budgets are solved
compress  one layer: what would be stored for it
blueprint what that will be, before it is done: tensors of the right shapes without values
"""

from functools import singledispatch

import torch

from engine.catalog.technique import Technique
from engine.work.layers import Layer
from engine.work.stored.weights import Stored


@singledispatch
def plan(how: Technique, layers: list[Layer]) -> dict[str, Technique]:
    """The setting of each layer by name; by default all are treated alike."""
    return {layer.name: how for layer in layers}


@singledispatch
def compress(how: Technique, weight: torch.Tensor) -> Stored:
    """What would be stored for one layer's weight, (out, in_) float32."""
    raise TypeError(f"no method implements {type(how).__name__}")


@singledispatch
def blueprint(how: Technique, shape: tuple[int, int]) -> Stored:
    """What ``compress`` will give for a weight of this shape; its tensors have no values (device meta)."""
    raise TypeError(f"no method forecasts {type(how).__name__}")


def sketch(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor without values, for blueprints."""
    return torch.empty(shape, dtype=dtype, device="meta")


def predicted_bytes(how: Technique, shape: tuple[int, int]) -> int:
    """Bytes that ``compress`` will store for a weight of this shape."""
    return blueprint(how, shape).nbytes
