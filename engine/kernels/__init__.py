"""Layers that a real kernel runs with the codes and scales as they are stored. Importing this
package registers them all.
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
