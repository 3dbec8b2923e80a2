"""Factored weights are the product of their factors, as a matrix and as a chain of convolutions."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import conv2d

from engine.tensors.low_rank import (
    DEFAULT_CONV_OPTIONS,
    AdaptedWeight,
    CPKernel,
    LowRankWeight,
    TuckerKernel,
    break_even_rank,
    saves_parameters,
)
from engine.tensors.weights import DenseWeight
from tests.cases import for_each
from tests.matrices import normal

sizes = st.integers(1, 200)
CONV_OPTIONS = [
    {},
    {"stride": (2, 1), "padding": (1, 2)},
    {"dilation": (2, 1), "padding": (0, 1)},
]


def dense(*shape: int, seed: int = 0) -> DenseWeight:
    return DenseWeight(shape, normal(*shape, seed=seed))


def kernel_weight(kind: str) -> TuckerKernel | CPKernel | LowRankWeight:
    """Factors of a kernel (16, 12, 3, 5)."""
    shape = (16, 12 * 3 * 5)
    if kind == "tucker":
        return TuckerKernel(shape, 3, 5, dense(16, 4), dense(4, 3 * 15, seed=1), dense(3, 12))
    if kind == "cp":
        return CPKernel(shape, dense(16, 4), dense(4, 12, seed=1), dense(4, 3), dense(4, 5))
    return LowRankWeight(shape, dense(16, 4), dense(4, 12 * 15, seed=1))


@given(sizes, sizes, sizes)
def test_factors_save_parameters_below_the_break_even_rank_only(out, in_, rank):
    assert saves_parameters((out, in_), rank) == (rank < break_even_rank((out, in_)))
    weight = LowRankWeight((out, in_), dense(out, rank), dense(rank, in_))
    assert (weight.nparameters < out * in_) == saves_parameters((out, in_), rank)
    assert bool(weight.factors(torch.float32)) == saves_parameters((out, in_), rank)
    assert bool(weight.note()) != saves_parameters((out, in_), rank)


def test_factors_one_after_the_other_give_the_product_of_the_matrix():
    weight = LowRankWeight((24, 40), dense(24, 5), dense(5, 40, seed=1))
    inputs = normal(7, 40, seed=2)
    outputs = inputs
    for factor in weight.factors(torch.float32):
        outputs = outputs @ factor.T
    torch.testing.assert_close(outputs, inputs @ weight.to_dense().T, rtol=1e-4, atol=1e-4)


@for_each("options", CONV_OPTIONS, ids=str)
@for_each("kind", ["low-rank", "tucker", "cp"])
def test_a_chain_of_convolutions_is_the_convolution_with_the_dense_kernel(kind, options):
    weight, inputs = kernel_weight(kind), normal(2, 12, 11, 13, seed=3)
    config = DEFAULT_CONV_OPTIONS | options
    outputs = inputs
    for kernel, each in weight.conv_chain((16, 12, 3, 5), config, torch.float32):
        outputs = conv2d(outputs, kernel, **each)
    due = conv2d(inputs, weight.to_dense().view(16, 12, 3, 5), **config)
    torch.testing.assert_close(outputs, due, rtol=1e-4, atol=1e-3)


def test_adapters_are_added_and_counted_apart():
    base, correction = (
        dense(24, 40),
        LowRankWeight((24, 40), dense(24, 2), dense(2, 40, seed=1)),
    )
    weight = AdaptedWeight((24, 40), base, correction)
    torch.testing.assert_close(weight.to_dense(), base.to_dense() + correction.to_dense())
    assert weight.byte_breakdown() == {
        "dense weights": 4 * 24 * 40,
        "adapters": 4 * 2 * (24 + 40),
    }
    assert weight.nbytes == sum(weight.byte_breakdown().values())
