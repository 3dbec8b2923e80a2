"""Ternary, binary and logarithmic levels against closed forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.techniques.implementations import compress
from engine.techniques.quantization.fixed_levels.config import Logarithmic, Ternary
from tests.cases import for_each
from tests.matrices import normal, squared_error, weights
from tests.techniques import LOGARITHMIC, technique_id

few = settings(max_examples=20)


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@given(weights())
def test_ternary_weights_are_minus_one_zero_or_one_scale(granularity, weight):
    stored = compress(Ternary(granularity=granularity), weight)
    assert stored.flat_codes().max() <= 2
    mean = weight.abs().mean().item()
    if granularity == "tensor" and mean:
        signs = stored.to_dense() / stored.scales.float()
        assert set(signs.unique().tolist()) <= {-1.0, 0.0, 1.0}
        assert stored.scales.item() == pytest.approx(mean, rel=1e-3)


@given(weights())
def test_binary_weights_are_their_sign_times_the_mean_magnitude(weight):
    result = compress(Ternary(values="binary", granularity="channel"), weight).to_dense()
    mean = weight.abs().mean(1, keepdim=True).expand_as(weight)
    torch.testing.assert_close(result.abs(), mean, rtol=1e-3, atol=0)
    assert (result.signbit() == weight.signbit())[weight != 0].all()


def test_the_mean_magnitude_is_the_best_scale_for_signs():
    weight = normal(8, 64)
    mean = weight.abs().mean().item()
    least = squared_error(Ternary(values="binary", granularity="tensor"), weight)
    for scale in (0.9 * mean, 1.1 * mean):
        assert least < (weight.sign() * scale - weight).square().sum()


def test_five_ternary_weights_or_eight_binary_ones_take_a_byte():
    shape = (64, 320)
    for values, bits in (("ternary", 1.6), ("binary", 1.0)):
        stored = compress(Ternary(values=values, granularity="tensor"), normal(*shape))
        assert (
            stored.codes.nbytes * 8 / (64 * 320) == bits
            and stored.nbytes == stored.codes.nbytes + 2
        )


@for_each("config", LOGARITHMIC, ids=technique_id)
@few
@given(weights())
def test_inside_the_range_the_logarithm_is_off_by_at_most_half_a_step(config, weight):
    stored = compress(config, weight)
    result, least = stored.to_dense(), stored.values()[stored.values() > 0].min()
    scales = stored.scales.float()
    scales = (
        scales
        if scales.shape[1] == 1
        else scales.repeat_interleave(stored.group_size, 1)[:, : weight.shape[1]]
    )
    inside = weight.abs() >= (least * scales).clamp_min(1e-37)
    off = (result.double() / weight.double()).log2().abs()
    assert (off[inside] <= 0.5 / config.steps_per_octave + 1e-3).all()


@few
@given(weights(), st.integers(2, 8))
def test_with_scales_in_a_byte_every_weight_is_a_power_of_two(weight, bits):
    stored = compress(Logarithmic(bits=bits), weight)
    result = stored.to_dense()
    assert stored.scales.itemsize == 1 and (result[result != 0].frexp().mantissa.abs() == 0.5).all()


def test_steps_in_an_octave_make_what_is_in_range_finer():
    weight = normal(16, 256)
    assert [
        squared_error(Logarithmic(bits=8, steps_per_octave=steps), weight) for steps in (1, 2, 4)
    ] == sorted(
        (squared_error(Logarithmic(bits=8, steps_per_octave=steps), weight) for steps in (1, 2, 4)),
        reverse=True,
    )
