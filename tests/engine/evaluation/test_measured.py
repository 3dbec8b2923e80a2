"""The model's state while it is evaluated."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engine.errors import PlainError
from engine.evaluation.measured import evaluation_mode, finite_loss, inputs_on_device


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_given_back_also_after_an_error(training):
    model = nn.Dropout(0.5).train(training)
    with pytest.raises(RuntimeError), evaluation_mode(model):
        assert not model.training and torch.is_inference_mode_enabled()
        raise RuntimeError
    assert model.training == training and not torch.is_inference_mode_enabled()


def test_a_loss_that_is_no_number_is_named_with_its_place():
    assert finite_loss(torch.tensor(2.5), "test.txt") == 2.5
    for loss, words in ((float("nan"), "not numbers"), (float("inf"), "infinitely wrong")):
        with pytest.raises(PlainError, match=f"{words}.* on test.txt"):
            finite_loss(torch.tensor(loss), "test.txt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_take_the_models_precision_and_tokens_stay_whole_numbers(dtype):
    model = nn.Linear(2, 2, dtype=dtype)
    inputs = {"pixel_values": torch.ones(1, 2), "input_ids": torch.ones(1, 2, dtype=torch.int64)}
    moved = inputs_on_device(inputs, model, "cpu")
    assert moved["pixel_values"].dtype == dtype and moved["input_ids"].dtype == torch.int64


@pytest.mark.parametrize(("types", "kept"), [(0, False), (1, False), (2, True)])
def test_token_types_go_to_models_that_tell_them_apart(types, kept):
    model = nn.Linear(2, 2)
    model.config = SimpleNamespace(type_vocab_size=types)
    inputs = {"input_ids": torch.ones(1, 2), "token_type_ids": torch.ones(1, 2)}
    assert ("token_type_ids" in inputs_on_device(inputs, model, "cpu")) == kept
