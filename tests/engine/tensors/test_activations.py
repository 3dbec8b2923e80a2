"""Inputs that are rounded to whole numbers."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.tensors.activations import WithQuantizedInputs, code_range, qparams
from engine.tensors.weights import DenseWeight
from tests.cases import for_each
from tests.matrices import normal

schemes = st.sampled_from(["symmetric", "asymmetric"])
ends = st.floats(-1e4, 1e4, width=32)


@given(ends, ends, st.integers(2, 8), schemes)
def test_zero_is_a_code_and_both_ends_are_off_by_half_a_step_at_most(one, other, bits, scheme):
    low, high = torch.tensor([min(one, other)]), torch.tensor([max(one, other)])
    scale, zero = qparams(low, high, bits, scheme)
    lowest, highest = code_range(bits, scheme)
    assert zero == zero.round() and lowest <= zero <= highest and scale > 0
    for end in (low.clamp(max=0), high.clamp(min=0)):
        code = (end / scale + zero).round().clamp(lowest, highest)
        assert ((code - zero) * scale - end).abs() <= scale * 0.5001


@for_each("per", ["token", "tensor"])
@for_each("scheme", ["symmetric", "asymmetric"])
def test_dynamic_ranges_are_those_of_each_token_or_example(scheme, per):
    stored = WithQuantizedInputs((4, 8), DenseWeight((4, 8), normal(4, 8)), 8, scheme, per)
    inputs = normal(2, 5, 8)
    inputs[0, 0] *= 100  # one token far beyond the others
    rounded = stored.quantized_inputs(inputs)
    alone = torch.cat([stored.quantized_inputs(each[None]) for each in inputs])
    assert torch.equal(rounded, alone), "examples do not depend on one another"
    error = (rounded - inputs).abs()[0, 1:].max()
    assert (error < 0.05) == (per == "token")


def test_static_ranges_clip_values_outside():
    scale, zero = qparams(torch.tensor([-1.0]), torch.tensor([1.0]), 8, "symmetric")
    weight = DenseWeight((4, 3), normal(4, 3))
    stored = WithQuantizedInputs((4, 3), weight, 8, "symmetric", "tensor", scale, zero)
    rounded = stored.quantized_inputs(torch.tensor([[0.5, -3.0, 9.0]]))
    torch.testing.assert_close(rounded, torch.tensor([[64 / 127, -1.0, 1.0]]))
    assert torch.equal(stored.to_dense(), weight.to_dense())
