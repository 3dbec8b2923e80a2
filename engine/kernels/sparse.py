"""Layers with many zero weights: products of sparse rows on a CPU, 2:4 sparsity on NVIDIA GPUs."""

import warnings

import torch
from torch.nn.functional import linear as product

from engine.kernels.integer import add_bias
from engine.kernels.kernel import Kernel, NoKernelError, kernel_for, require_linear
from engine.models.packed_modules import Unpacking, UnpackingLinear
from engine.tensors.sparse import CSR, Bitmask, NOfM

SPARSE = "torch's sparse products"


class SparseRowKernel(Kernel):
    """MKL's products of compressed sparse rows, in float32."""

    display_name = "torch CSR"
    tolerance = 1e-2  # of a model that computes in bfloat16

    def __init__(self, stored: CSR, layer: UnpackingLinear):
        super().__init__()
        self.bias = None if layer.bias is None else layer.bias.float()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # warning about the beta state of torch's sparse tensors
            self.rows = torch.sparse_csr_tensor(
                stored.starts,
                stored.columns.int(),
                stored.values.float(),
                stored.shape,
                check_invariants=True,
            )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = (self.rows @ inputs.flatten(0, -2).float().T).T
        return add_bias(outputs, self.bias).unflatten(0, inputs.shape[:-1]).to(inputs.dtype)


class SemiStructuredKernel(Kernel):
    """Products on tensor cores with 2:4 sparsity (Mishra et al. 2021, arXiv:2104.08378), in 16
    bits.
    """

    display_name = "torch 2:4 (tensor cores)"
    tolerance = 1e-2

    def __init__(self, stored: NOfM, layer: UnpackingLinear):
        super().__init__()
        dtype = layer.compute if layer.compute.itemsize == 2 else torch.float16
        self.note = f"computes in {str(dtype).removeprefix('torch.')}"
        self.weight = torch.sparse.to_sparse_semi_structured(stored.to_dense(dtype))
        self.bias = None if layer.bias is None else layer.bias.to(dtype)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = product(inputs.flatten(0, -2).to(self.weight.dtype), self.weight, self.bias)
        return outputs.unflatten(0, inputs.shape[:-1]).to(inputs.dtype)


@kernel_for.register
def kernel_for_csr(stored: CSR, layer: Unpacking) -> SparseRowKernel:
    return SparseRowKernel(stored, require_linear(layer, SPARSE))


@kernel_for.register
def kernel_for_n_of_m(stored: NOfM, layer: Unpacking) -> SemiStructuredKernel:
    layer, n = (
        require_linear(layer, SPARSE),
        stored.of_ * stored.values.shape[1] // stored.shape[1],
    )
    if (n, stored.of_) != (2, 4):
        raise NoKernelError(
            f"tensor cores multiply 2 of every 4, and these are {n} of {stored.of_}"
        )
    if not stored.values.is_cuda:
        raise NoKernelError(
            "2 of every 4 is multiplied by tensor cores of NVIDIA GPUs, and this run "
            "computed on the CPU"
        )
    return SemiStructuredKernel(stored, layer)


@kernel_for.register
def kernel_for_bitmask(stored: Bitmask, layer: Unpacking) -> Kernel:
    raise NoKernelError(
        "no kernel multiplies weights stored as a bitmask; on a CPU, there is one for CSR (storage)"
    )
