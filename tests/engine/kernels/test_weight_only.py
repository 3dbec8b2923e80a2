"""Stored grids in the formats of torch's weight-only kernels."""

import pytest
import torch

from engine.kernels.kernel import NoKernelError
from engine.kernels.weight_only import (
    CENTER_CODE,
    GROUPS,
    int4_codes_and_steps,
    int4_group_size,
)
from engine.techniques.implementations import compress
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.tensors.weights import IntegerWeight
from tests.cases import for_each
from tests.matrices import normal


def grid(out: int = 32, in_: int = 256, **config) -> IntegerWeight:
    return compress(RoundToNearest(**config), normal(out, in_))


@for_each("bits", [2, 3, 4])
@for_each("scheme", ["symmetric", "asymmetric"])
@for_each("group_size", [32, 64, 128])
def test_codes_steps_and_zeros_give_the_stored_weight(bits, scheme, group_size):
    stored = grid(bits=bits, scheme=scheme, group_size=group_size)
    codes, steps, zeros = int4_codes_and_steps(stored, int4_group_size(stored))
    step, zero = (values.repeat_interleave(group_size, 1) for values in (steps, zeros))
    torch.testing.assert_close((codes - CENTER_CODE) * step + zero, stored.to_dense())
    assert codes.min() >= 0 and codes.max() < 16
    assert scheme == "asymmetric" or (zeros == 0).all(), "zero is exact"


@for_each("group_size", [16, 32, 96, 512])
def test_scales_are_repeated_where_torchs_groups_are_narrower(group_size):
    stored = grid(16, 512, bits=4, group_size=group_size)
    if all(group_size % width for width in GROUPS):
        with pytest.raises(NoKernelError, match="full groups"):
            int4_group_size(stored)
        return
    width = int4_group_size(stored)
    codes, steps, zeros = int4_codes_and_steps(stored, width)
    if codes.shape[1] % group_size == 0:
        assert steps.shape == zeros.shape == (16, codes.shape[1] // width)


@pytest.mark.parametrize("out", [15, 24])
def test_rows_beyond_what_the_kernel_reads_are_refused(out):
    with pytest.raises(NoKernelError, match=f"multiple of 16 rows, and these are {out}"):
        int4_group_size(grid(out, 64, bits=4, group_size=32))
