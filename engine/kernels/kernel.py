"""Interface of kernels, and the choice of a kernel for a packed weight."""

from functools import singledispatch
from typing import ClassVar

from torch import nn

from engine.models.packed_modules import Unpacking, UnpackingConv2d, UnpackingLinear
from engine.tensors.weights import StoredWeight


class NoKernelError(Exception):
    """No kernel can multiply this layer as stored. The message completes a sentence."""


class Kernel(nn.Module):
    """Replacement for an unpacking layer. Outputs are equal up to ``tolerance`` of their norm."""

    display_name: ClassVar[str]  # as shown in the dashboard
    tolerance: ClassVar[float]
    note: str = ""  # remark on this layer


@singledispatch
def kernel_for(stored: StoredWeight, layer: Unpacking) -> Kernel:
    """Kernel that multiplies this layer as stored, on its device. Raises NoKernelError."""
    raise NoKernelError(f"torch has no CPU kernel for the format {stored.kind!r}")


def supported_kernel(layer: Unpacking) -> Kernel:
    """Return the kernel that multiplies with a layer as it is stored.

    Raises NoKernelError also if this build of torch or this processor does not support it.
    """
    try:
        return kernel_for(layer.stored, layer)
    except (RuntimeError, AttributeError, ValueError) as error:
        raise NoKernelError(
            f"torch refuses on this processor ({str(error).splitlines()[0][:120]})"
        ) from None


def require_linear(layer: Unpacking, product_name: str) -> UnpackingLinear:
    """Return the layer after checking that it is a linear layer.

    Raises NoKernelError for other kinds of layers.
    """
    if not isinstance(layer, UnpackingLinear):
        kind = "convolutions" if isinstance(layer, UnpackingConv2d) else "embeddings"
        raise NoKernelError(f"{product_name} multiply matrices, and there are none for {kind}")
    return layer
