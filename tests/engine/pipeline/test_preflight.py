"""Refusals before a run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import PlainError
from engine.models.layers import Layer
from engine.pipeline.preflight import MAX_CHANNELS_PER_TOKEN, check_calibration_size
from engine.techniques.quantization.gptq.config import GPTQ
from engine.techniques.quantization.rounding.config import RoundToNearest


def linear(name: str, in_: int) -> Layer:
    return Layer(name, "linear", (8, in_), 4, "")


@given(st.integers(1, 5000), st.integers(1, 400))
def test_calibration_is_large_enough_from_one_token_for_so_many_channels_on(width, tokens):
    layers = [linear("narrow", 1), linear("wide", width)]
    if tokens * MAX_CHANNELS_PER_TOKEN >= width:
        check_calibration_size(GPTQ(), layers, tokens)
        return
    with pytest.raises(PlainError, match=f"gives {tokens} tokens.* wide has") as refused:
        check_calibration_size(GPTQ(), layers, tokens)
    least = int(str(refused.value).split("at least ")[1].split(" ")[0].replace(",", ""))
    check_calibration_size(GPTQ(), layers, least)
    with pytest.raises(PlainError):
        check_calibration_size(GPTQ(), layers, max(tokens, least - 1))


def test_techniques_without_a_gram_matrix_images_and_convolutions_need_no_number_of_tokens():
    wide = [linear("wide", 10**6)]
    check_calibration_size(RoundToNearest(), wide, 1)
    check_calibration_size(GPTQ(), wide, 0)  # images
    check_calibration_size(GPTQ(), [Layer("conv", "conv2d", (8, 10**6, 3, 3), 4, "")], 1)
