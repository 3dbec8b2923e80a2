"""Interface of kernels, and their selection for a packed weight."""

from functools import singledispatch
from typing import ClassVar

from torch import nn

from engine.models.packed_modules import Unpacking, UnpackingConv2d, UnpackingLinear
from engine.tensors.weights import StoredWeight


class NoKernelError(Exception):
    """Why nothing here multiplies this layer as it is stored: the rest of a sentence."""


class Kernel(nn.Module):
    """Stands in for an unpacking layer and gives the same outputs, up to ``tolerance`` of their
    norm.
    """

    display_name: ClassVar[str]  # as it is written on the screen
    tolerance: ClassVar[float]
    note: str = ""  # what is peculiar about it here


@singledispatch
def kernel_for(stored: StoredWeight, layer: Unpacking) -> Kernel:
    """The kernel that multiplies this layer as it is stored, on the device where that lies. Raises
    NoKernel.
    """
    raise NoKernelError(f"torch has no CPU kernel for the format {stored.kind!r}")


def supported_kernel(layer: Unpacking) -> Kernel:
    """Raises NoKernel also where this build of torch or this processor has none."""
    try:
        return kernel_for(layer.stored, layer)
    except (RuntimeError, AttributeError, ValueError) as error:
        raise NoKernelError(
            f"torch refuses on this processor ({str(error).splitlines()[0][:120]})"
        ) from None


def require_linear(layer: Unpacking, product_name: str) -> UnpackingLinear:
    """Raises NoKernel for any other kind of layer."""
    if not isinstance(layer, UnpackingLinear):
        kind = "convolutions" if isinstance(layer, UnpackingConv2d) else "embeddings"
        raise NoKernelError(f"{product_name} multiply matrices, and there are none for {kind}")
    return layer
