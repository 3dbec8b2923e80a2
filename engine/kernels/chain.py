"""Factorized layers: torch's own products and convolutions, one factor after the other."""

import copy

import torch

from engine.kernels.kernel import Kernel, NoKernel, kernel_for
from engine.models.packed_modules import Unpacking
from engine.tensors.low_rank import CPKernel, LowRank, TuckerKernel, Whole


class Chain(Kernel):
    called = "products of the factors"
    tolerance = 1e-2

    def __init__(self, layer: Unpacking):
        super().__init__()
        if not layer.made():
            raise NoKernel(
                "its factors take more than its weight, so it runs as one product, as before"
            )
        self.layer = copy.copy(layer)
        self.layer.chain = layer.made()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs)


@kernel_for.register(LowRank)
@kernel_for.register(TuckerKernel)
@kernel_for.register(CPKernel)
def kernel_for_low_rank_or_tucker_kernel_or_cp_kernel(
    stored: LowRank | TuckerKernel | CPKernel, layer: Unpacking
) -> Chain:
    return Chain(layer)


@kernel_for.register
def kernel_for_whole(stored: Whole, layer: Unpacking) -> Kernel:
    raise NoKernel("the layer was kept as it was, so it is as quick as before")
