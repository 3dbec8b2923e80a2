"""8-bit floating-point numbers."""

import pytest
import torch

from engine.tensors.floats import Float8

FORMATS = [torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", FORMATS)
def test_every_finite_byte_is_a_level_that_is_counted_once(dtype):
    numbers = torch.arange(256, dtype=torch.uint8).view(dtype)
    numbers = numbers[numbers.float().isfinite()]
    stored = Float8((1, len(numbers)), numbers.view(1, -1))
    assert (stored.levels().diff() >= 0).all() and (stored.level_counts() == 1).all()
    assert len(stored.levels()) == len(numbers)


@pytest.mark.parametrize("dtype", FORMATS)
def test_scales_multiply_each_row(dtype):
    numbers = torch.tensor([[1.0, -2.0], [0.5, 4.0]]).to(dtype)
    stored = Float8((2, 2), numbers, torch.tensor([[3.0], [0.1]]))
    torch.testing.assert_close(stored.to_dense(), torch.tensor([[3.0, -6.0], [0.05, 0.4]]))
    assert torch.equal(Float8((2, 2), numbers).to_dense(), numbers.float())
