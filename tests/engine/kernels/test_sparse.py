"""Products with sparse rows."""

import torch
from torch import nn

from engine.kernels.sparse import SparseRowKernel
from engine.models.packed_modules import UnpackingLinear
from engine.tensors.sparse import CSR, sparse_weight
from tests.cases import for_each
from tests.matrices import normal


@for_each("zeros", [0.0, 0.5, 0.97, 1.0])
@for_each("bias", [True, False])
def test_products_are_those_of_the_dense_matrix(zeros, bias):
    weight = normal(24, 40)
    weight[torch.rand(24, 40, generator=torch.Generator().manual_seed(0)) < zeros] = 0
    stored, layer = sparse_weight(weight, "csr", None), nn.Linear(40, 24, bias=bias)
    assert isinstance(stored, CSR)
    kernel = SparseRowKernel(stored, UnpackingLinear(stored, layer, torch.float32))
    inputs = normal(3, 5, 40, seed=1)
    due = nn.functional.linear(inputs, weight, layer.bias)
    torch.testing.assert_close(kernel(inputs), due, rtol=1e-4, atol=1e-5)
