"""Losses of a student against closed forms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import (
    softmax,
)

from engine.config.registry import TECHNIQUES
from engine.errors import PlainError
from engine.recipe import Recipe
from engine.techniques.distillation.distill.config import Distill
from engine.techniques.distillation.distill.distillation_loss import (
    channels_last,
    combined_teacher_logits,
    compared_block_numbers,
    compared_block_pairs,
)
from tests.cases import for_each
from tests.matrices import normal
from tests.tiny import ARCHITECTURES


@given(st.integers(1, 4), st.floats(0.5, 8))
def test_softened_answers_of_several_teachers_are_their_mean(teachers, temperature):
    logits = [3 * normal(5, 7, seed=seed) for seed in range(teachers)]
    together = combined_teacher_logits(logits, temperature, "mean")
    due = torch.stack([(each / temperature).softmax(-1) for each in logits]).mean(0)
    torch.testing.assert_close((together / temperature).softmax(-1), due, rtol=1e-4, atol=1e-6)


def test_a_confident_teacher_has_more_weight():
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


def test_equal_teachers_are_unchanged_and_confident_ones_have_more_weight():
    one, other = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.1, 0.0, 0.2]])
    torch.testing.assert_close(
        softmax(combined_teacher_logits([one, one], 2.0, "confidence") / 2, -1),
        softmax(one / 2, -1),
    )
    mean, sure = (
        softmax(combined_teacher_logits([one, other], 1.0, by), -1) for by in ("mean", "confidence")
    )
    torch.testing.assert_close(mean, (softmax(one, -1) + softmax(other, -1)) / 2)
    assert sure[0, 0] > mean[0, 0]


def test_blocks_are_compared_at_the_same_relative_depth():
    def deep(blocks: int):
        return ARCHITECTURES["llama"](num_hidden_layers=blocks)

    asked = TECHNIQUES["distill"](features="mse")
    pairs = [
        tuple(int(name.rpartition(".")[2]) for name in pair)
        for pair in compared_block_pairs(asked, deep(2), deep(4))
    ]
    assert pairs == [(0, 1), (1, 3)]
    last = compared_block_pairs(
        asked.model_copy(update={"feature_blocks": "last"}), deep(3), deep(4)
    )
    assert last == [("model.layers.2", "model.layers.3")]
    named = compared_block_pairs(
        asked.model_copy(update={"feature_blocks": "3, 1"}), deep(4), deep(8)
    )
    assert named == [("model.layers.0", "model.layers.1"), ("model.layers.2", "model.layers.5")]
    with pytest.raises(
        PlainError,
        match=(
            r"\(feature_blocks\) names block 9, and the student has 4; give numbers from 1 to 4, "
            r"or each, or last\.$"
        ),
    ):
        compared_block_pairs(asked.model_copy(update={"feature_blocks": "1,9"}), deep(4), deep(8))


def test_one_block_may_be_an_integer():
    assert TECHNIQUES["distill"](features="mse", feature_blocks=2).compared_blocks == (2,)


@for_each("given", ["first", "0,1", "1,,2", "1.5", "-1", ","])
def test_blocks_that_are_not_numbers_give_a_message(given):
    with pytest.raises(PlainError) as error:
        Recipe.from_dict(
            {"steps": [{"technique": "distill", "features": "mse", "feature_blocks": given}]}
        )
    assert "is not a list of blocks; give each" in str(error.value) and "\n" not in str(error.value)
