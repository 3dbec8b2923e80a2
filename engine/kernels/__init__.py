"""Layers that a real kernel runs with the codes and scales as they are stored. Importing this
package registers them all.
"""

from engine.kernels import chain, integer, sparse, weight_only
from engine.kernels.kernel import Kernel, NoKernel, kernel_for, kernel_of

__all__ = [
    "Kernel",
    "NoKernel",
    "chain",
    "integer",
    "kernel_for",
    "kernel_of",
    "sparse",
    "weight_only",
]
