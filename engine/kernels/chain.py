"""Factorized layers, computed by torch's products and convolutions, one factor after the other."""

import copy

import torch

from engine.kernels.kernel import Kernel, NoKernelError, kernel_for
from engine.models.packed_modules import Unpacking
from engine.tensors.low_rank import CPKernel, LowRankWeight, TuckerKernel, UnfactoredWeight


class FactorizedKernel(Kernel):
    display_name = "products of the factors"
    tolerance = 1e-2

    def __init__(self, layer: Unpacking):
        super().__init__()
        if not layer.weight_factors():
            raise NoKernelError(
                "its factors take more than its weight, so it runs as one product, as before"
            )
        self.layer = copy.copy(layer)
        self.layer.chain = layer.weight_factors()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs)


@kernel_for.register(LowRankWeight)
@kernel_for.register(TuckerKernel)
@kernel_for.register(CPKernel)
def kernel_for_factorized(
    stored: LowRankWeight | TuckerKernel | CPKernel, layer: Unpacking
) -> FactorizedKernel:
    return FactorizedKernel(layer)


@kernel_for.register
def kernel_for_unfactored(stored: UnfactoredWeight, layer: Unpacking) -> Kernel:
    raise NoKernelError("the layer is unchanged, so it is as fast as before")
