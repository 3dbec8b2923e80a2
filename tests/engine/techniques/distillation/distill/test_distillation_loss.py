"""Losses of a student against closed forms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import PlainError
from engine.techniques.distillation.distill.config import Distill
from engine.techniques.distillation.distill.distillation_loss import (
    channels_last,
    combined_teacher_logits,
    compared_block_numbers,
)
from tests.matrices import normal


@given(st.integers(1, 4), st.floats(0.5, 8))
def test_softened_answers_of_several_teachers_are_their_mean(teachers, temperature):
    logits = [3 * normal(5, 7, seed=seed) for seed in range(teachers)]
    together = combined_teacher_logits(logits, temperature, "mean")
    due = torch.stack([(each / temperature).softmax(-1) for each in logits]).mean(0)
    torch.testing.assert_close((together / temperature).softmax(-1), due, rtol=1e-4, atol=1e-6)


def test_a_teacher_who_is_sure_counts_for_more():
    sure, unsure = torch.tensor([[10.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.5, 0.0]])
    mean, weighted = (
        combined_teacher_logits([sure, unsure], 1.0, how).softmax(-1)
        for how in ("mean", "confidence")
    )
    assert weighted[0, 0] > mean[0, 0]
    equal = combined_teacher_logits([sure, sure.flip(-1)], 1.0, "confidence").softmax(-1)
    torch.testing.assert_close(equal, equal.flip(-1))


def test_feature_maps_are_places_with_channels_last():
    images = normal(2, 3, 4, 5)
    places = channels_last(images)
    assert places.shape == (2, 20, 3)
    assert torch.equal(places[1, 7], images[1, :, 1, 2])
    assert channels_last(normal(2, 9, 3)).shape == (2, 9, 3)


def test_compared_blocks_are_each_the_last_or_those_that_are_named():
    def numbers(feature_blocks: str) -> tuple[int, ...]:
        config = Distill(features="mse", feature_blocks=feature_blocks)
        return compared_block_numbers(config, 4)

    assert numbers("each") == (1, 2, 3, 4) and numbers("last") == (4,)
    assert numbers("2, 4") == (2, 4)
    with pytest.raises(PlainError, match="names block 5, and the student has 4"):
        numbers("2, 5")
