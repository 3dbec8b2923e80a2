"""A layer with whole rows or columns removed, computed by torch's own products on its smaller
shape.
"""

from typing import ClassVar

import torch

from engine.kernels.kernel import Kernel
from engine.models.packed_modules import Unpacking
from engine.tensors.weights import DenseWeight


class NarrowerLayerKernel(Kernel):
    """The remaining dense layer, with its weight in the dtype of computation."""

    tolerance: ClassVar[float] = 1e-5

    def __init__(self, layer: Unpacking, dense_layer: Unpacking):
        super().__init__()
        self.display_name = f"{str(layer.compute).removeprefix('torch.')} products"
        self.ready = dense_layer

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.ready(inputs)


def is_narrower(layer: Unpacking, before: Unpacking) -> bool:
    """Return True if a layer is dense like the original one but has another shape."""
    return (
        isinstance(layer.stored, DenseWeight)
        and isinstance(before.stored, DenseWeight)
        and layer.kernel != before.kernel
    )
