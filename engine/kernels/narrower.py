"""A layer of which whole rows or columns are gone: torch's own products run it as it is, on fewer
numbers.
"""

from typing import ClassVar

import torch

from engine.kernels.kernel import Kernel
from engine.models.packed_modules import Unpacking
from engine.tensors.weights import Dense


class Narrower(Kernel):
    """The dense layer that is left, its weight ready in the precision in which it computes."""

    tolerance: ClassVar[float] = 1e-5

    def __init__(self, layer: Unpacking, ready: Unpacking):
        super().__init__()
        self.called = f"{str(layer.compute).removeprefix('torch.')} products"
        self.ready = ready

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.ready(inputs)


def is_narrower(layer: Unpacking, before: Unpacking) -> bool:
    """Return True if a layer is dense like the original one but has another shape."""
    return (
        isinstance(layer.stored, Dense)
        and isinstance(before.stored, Dense)
        and layer.kernel != before.kernel
    )
