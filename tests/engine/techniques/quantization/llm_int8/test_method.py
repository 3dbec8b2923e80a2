"""LLM.int8() against closed forms: outliers in 16 bits, everything else as whole numbers."""

import pytest
import torch
from torch.nn.functional import conv2d, unfold

from engine.calibration import InputStats
from engine.config.registry import TECHNIQUES
from engine.techniques.implementations import compress, predicted_bytes
from engine.tensors.weights import weight_from_settings

CPU = torch.device("cpu")
LLMInt8 = TECHNIQUES["llm-int8"]


def seen_of(rows: torch.Tensor, area: int = 1) -> InputStats:
    seen = InputStats(rows.shape[1], CPU, wants_gram=False, area=area)
    seen.add(rows)
    return seen


@pytest.fixture
def layer():
    torch.manual_seed(0)
    inputs = torch.randn(64, 172)
    inputs[:, [3, 90]] *= 60
    return torch.randn(48, 172), inputs


def test_columns_with_outliers_are_stored_in_16_bits(layer):
    weight, inputs = layer
    stored = compress(LLMInt8(), weight, seen_of(inputs))
    assert stored.columns.tolist() == [3, 90]
    torch.testing.assert_close(
        stored.to_dense()[:, [3, 90]], weight[:, [3, 90]].half().float(), rtol=0, atol=0
    )
    rest = weight.clone()
    rest[:, [3, 90]] = 0
    step = rest.abs().amax(1, keepdim=True) / 127
    others = [column for column in range(172) if column not in (3, 90)]
    assert ((stored.to_dense() - weight).abs()[:, others] <= step / 2 * 1.001).all()


def test_each_token_is_rounded_on_a_grid_of_its_own_and_outliers_are_not(layer):
    weight, inputs = layer
    received = compress(LLMInt8(), weight, seen_of(inputs)).quantized_inputs(inputs)
    torch.testing.assert_close(received[:, [3, 90]], inputs[:, [3, 90]], rtol=0, atol=0)
    rest = inputs.clone()
    rest[:, [3, 90]] = 0
    step = rest.abs().amax(1, keepdim=True) / 127
    torch.testing.assert_close(received.masked_fill(rest == 0, 0), (rest / step).round() * step)


def test_an_outlier_that_calibration_did_not_show_is_kept_for_its_token(layer):
    weight, inputs = layer
    stored = compress(LLMInt8(), weight, seen_of(inputs))
    surprised = inputs.clone()
    surprised[5, 7] = 500.0
    received = stored.quantized_inputs(surprised)
    assert received[5, 7] == 500.0
    others = [token for token in range(64) if token != 5]
    torch.testing.assert_close(
        received[others], stored.quantized_inputs(inputs)[others], rtol=0, atol=0
    )


def test_tokens_are_judged_alone(layer):
    weight, inputs = layer
    stored = compress(LLMInt8(), weight, seen_of(inputs))
    torch.testing.assert_close(
        stored.quantized_inputs(inputs)[:5], stored.quantized_inputs(inputs[:5]), rtol=0, atol=0
    )


def test_outliers_hurt_plain_int8_and_not_this_one(layer):
    weight, inputs = layer
    exact, seen = inputs @ weight.T, seen_of(inputs)

    def relative_output_error(config) -> float:
        stored = compress(config, weight, seen)
        others = [column for column in range(172) if column not in (3, 90)]
        part = stored.quantized_inputs(inputs)[:, others] @ stored.to_dense()[:, others].T
        return ((part - inputs[:, others] @ weight[:, others].T).norm() / exact.norm()).item()

    plain = relative_output_error(TECHNIQUES["activations"](mode="dynamic", scheme="symmetric"))
    assert relative_output_error(LLMInt8()) < plain / 10


@pytest.mark.parametrize("threshold", [0.5, 6, 1000])
def test_bytes_are_int8_and_two_for_each_outlier_weight(layer, threshold):
    weight, inputs = layer
    stored = compress(LLMInt8(threshold=threshold), weight, seen_of(inputs))
    kept = len(stored.columns)
    assert stored.nbytes == predicted_bytes(LLMInt8(), (48, 172)) + kept * (48 * 2 + 4)
    again = weight_from_settings(stored.settings(), stored.tensors())
    torch.testing.assert_close(again.to_dense(), stored.to_dense(), rtol=0, atol=0)
    torch.testing.assert_close(
        again.quantized_inputs(inputs), stored.quantized_inputs(inputs), rtol=0, atol=0
    )


def test_a_convolutions_outlier_channel_takes_its_whole_kernel():
    torch.manual_seed(0)
    images, kernel = torch.randn(2, 4, 8, 8), torch.randn(6, 4, 3, 3)
    images[:, 2] *= 80
    seen = seen_of(unfold(images, 3).mT.flatten(0, 1), area=9)
    stored = compress(LLMInt8(threshold=20), kernel.flatten(1), seen)
    assert stored.columns.tolist() == list(range(18, 27))
    received = stored.quantized_inputs(images)
    torch.testing.assert_close(received[:, 2], images[:, 2], rtol=0, atol=0)
    ours = conv2d(received, stored.to_dense().view(kernel.shape))
    assert (ours - conv2d(images, kernel)).norm() < 0.01 * conv2d(images, kernel).norm()


def test_a_weight_beyond_float16_is_kept_in_bfloat16(layer):
    weight, inputs = layer
    weight[0, 3] = 1e6
    stored = compress(LLMInt8(), weight, seen_of(inputs))
    assert stored.values.dtype == torch.bfloat16 and stored.to_dense().isfinite().all()
