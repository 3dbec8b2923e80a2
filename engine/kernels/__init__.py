"""Layers computed by a real kernel from the stored codes and scales. Importing this package
registers all kernels.
"""

from engine.kernels import chain, integer, sparse, weight_only
from engine.kernels.kernel import Kernel, NoKernelError, kernel_for, supported_kernel

__all__ = [
    "Kernel",
    "NoKernelError",
    "chain",
    "integer",
    "kernel_for",
    "sparse",
    "supported_kernel",
    "weight_only",
]
