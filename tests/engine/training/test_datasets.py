"""Training data shares nothing with what quality is measured on."""

import pytest
import torch

from engine.errors import PlainError
from engine.evaluation.data.examples import load_examples
from engine.models.loading import resolve_model
from engine.recipe.tasks import (
    Calibration,
    ImageClassification,
    LanguageModeling,
    TextClassification,
)
from engine.training import (
    load_training_data,
)
from tests.recipes import task_for


def test_training_data_does_not_overlap_evaluation_data(folders, tmp_path):
    task = TextClassification(**task_for("bert", tmp_path))
    training_data, tokens = (
        load_training_data(task, None, resolve_model(str(folders["bert"]))),
        set(),
    )
    for part in (training_data.train, training_data.held_out):
        tokens |= {tuple(row.tolist()) for row in part.inputs["input_ids"]}
    assert (
        len(training_data.train) + len(training_data.held_out) == 24 - 16
        and len(load_examples(task).inputs) == 16
    )


def test_images_come_from_their_splits(folders):
    training_data = load_training_data(
        ImageClassification(), None, resolve_model(str(folders["resnet"]))
    )
    assert (
        len(training_data.train) > 1000
        and 150 < len(training_data.held_out) < 256
        and training_data.train.inputs["pixel_values"].shape[1:] == (1, 16, 16)
    )


def test_texts_are_padded_behind_and_cut_to_the_longest_of_a_batch(folders, tmp_path):
    train = load_training_data(
        TextClassification(**task_for("bert", tmp_path)), None, resolve_model(str(folders["bert"]))
    ).train
    lengths = train.inputs["attention_mask"].sum(1)
    shortest = train.subset(lengths.argmin()[None])
    assert (
        shortest.inputs["input_ids"].shape[1] == lengths.min()
        and shortest.inputs["attention_mask"].all()
    )


def test_a_text_is_cut_into_windows_of_which_the_last_are_held_out(folders, tmp_path):
    task = LanguageModeling(**task_for("llama", tmp_path))
    training_data = load_training_data(
        task, Calibration(text=task.text, context=16), resolve_model(str(folders["llama"]))
    )
    assert (
        training_data.train.targets.shape[1] == 16
        and len(training_data.held_out) == 32
        and torch.equal(training_data.train.inputs["input_ids"], training_data.train.targets)
    )


@pytest.mark.parametrize(
    ("samples", "words"), [(24, "has no labeled examples"), (23, "has 1 labeled examples")]
)
def test_data_without_more_examples_is_refused(samples, words, folders, tmp_path):
    with pytest.raises(PlainError, match=words + " to train on besides those"):
        load_training_data(
            TextClassification(**task_for("bert", tmp_path) | {"samples": samples}),
            None,
            resolve_model(str(folders["bert"])),
        )


def test_a_text_of_one_window_is_refused(folders, tmp_path):
    task = LanguageModeling(**task_for("llama", tmp_path))
    (tmp_path / "short.txt").write_text("a b c d e f g h i j")
    with pytest.raises(PlainError, match="one window of 16 tokens"):
        load_training_data(
            task,
            Calibration(text=str(tmp_path / "short.txt"), context=16),
            resolve_model(str(folders["llama"])),
        )
