"""A teacher's answer to one example: its own probabilities, the most likely ones first."""

import pytest
import torch

from engine.errors import PlainError
from engine.interactive.soft_targets import MAX_ANSWERS
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from tests.answers import soft_targets
from tests.recipes import task_for


@pytest.mark.parametrize("architecture", ["llama", "bert", "resnet"])
def test_soft_targets_are_the_models_probabilities_at_both_temperatures(
    architecture, folders, tmp_path
):
    asked = {"task": task_for(architecture, tmp_path)}
    hot, cold = (
        soft_targets(str(folders[architecture]), asked, 2, temperature).answers
        for temperature in (5.0, 1.0)
    )
    classes = load_model(
        resolve_model(str(folders[architecture])), torch.device("cpu"), torch.float32
    ).model.config
    count = getattr(classes, "vocab_size", 0) if architecture == "llama" else len(classes.id2label)
    assert (
        len(hot) == min(MAX_ANSWERS, count)
        and hot.plain.is_monotonic_decreasing
        and hot.right.sum() <= 1
    )
    assert cold.softened.tolist() == pytest.approx(cold.plain.tolist()) == hot.plain.tolist()
    ratios = (hot.softened / hot.softened.iloc[0]) ** 5
    assert ratios.tolist() == pytest.approx((hot.plain / hot.plain.iloc[0]).tolist(), rel=1e-3)


def test_another_example_has_other_answers(folders, tmp_path):
    asked = {"task": task_for("bert", tmp_path)}
    one, other = (soft_targets(str(folders["bert"]), asked, number, 1.0) for number in (0, 5))
    assert (
        one.example != other.example and one.answers.plain.tolist() != other.answers.plain.tolist()
    )


def test_another_task_is_refused(folders, tmp_path):
    with pytest.raises(PlainError, match="set task.kind to text-classification"):
        soft_targets(str(folders["bert"]), {"task": task_for("resnet", tmp_path)}, 0, 1.0)
