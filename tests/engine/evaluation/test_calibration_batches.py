import json

import pytest
import torch

from engine.errors import PlainError
from engine.evaluation import calibration_batches
from engine.evaluation.calibration_batches import calibration_data_for, is_evaluation_text
from engine.evaluation.data.examples import load_examples, load_text
from engine.evaluation.data.tokens import leading_tokens
from engine.evaluation.progress import ignore_progress
from engine.models.loading import resolve_model
from engine.recipe.tasks import (
    Calibration,
    ImageClassification,
    LanguageModeling,
    TextClassification,
)
from tests.tiny import SENTENCES, tiny, tokenizer


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return resolve_model(str(tiny("llama", tmp_path_factory.mktemp("llama"))))


@pytest.fixture
def text(tmp_path):
    (tmp_path / "a.txt").write_text(
        " ".join(f"{index} {SENTENCES[index % 3]}" for index in range(200))
    )
    return str(tmp_path / "a.txt")


def test_windows_have_the_given_context_and_share_no_token(llama, text):
    batches = calibration_batches(
        Calibration(text=text, samples=20, context=32), LanguageModeling(), llama
    )
    rows = torch.cat([batch["input_ids"] for batch in batches])
    assert rows.shape == (20, 32)
    assert (
        rows.flatten().tolist() == leading_tokens(load_text(text), tokenizer("llama"), 640).tolist()
    )


def test_the_text_that_quality_is_measured_on_is_passed_over(llama, text):
    task = LanguageModeling(text=text, tokens=1000, context=32)
    batches = calibration_batches(Calibration(text=text, samples=4, context=32), task, llama)
    rows = torch.cat([batch["input_ids"] for batch in batches])
    assert (
        rows.flatten().tolist()
        == leading_tokens(load_text(text), tokenizer("llama"), 1128).tolist()[1000:]
    )


def test_a_text_that_is_all_measured_on_is_refused(llama, text):
    with pytest.raises(PlainError, match="is also the evaluation text"):
        calibration_batches(
            Calibration(text=text, context=32), LanguageModeling(text=text, tokens=10**6), llama
        )


def test_two_names_of_one_split_are_the_same_texts():
    assert is_evaluation_text(LanguageModeling(split="train"), Calibration(split="calibration"))
    assert not is_evaluation_text(LanguageModeling(), Calibration())


def test_a_window_longer_than_the_positions_is_refused(llama, text):
    with pytest.raises(
        PlainError,
        match=(
            r"129 tokens exceeds the 128 that this model reads; set "
            r"Calibration context \(calibration\.context\) to at "
            r"most 128"
        ),
    ):
        calibration_batches(Calibration(text=text, context=129), LanguageModeling(), llama)


@pytest.fixture
def labeled_task(tmp_path):
    rows = [{"text": f"{index} {SENTENCES[index % 3]}", "label": index % 3} for index in range(50)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    return TextClassification(data=str(tmp_path / "a.json"), samples=30, length=32)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return resolve_model(str(tiny("bert", tmp_path_factory.mktemp("bert"))))


def as_texts(batches):
    return {
        tokenizer("bert").decode(row, skip_special_tokens=True)
        for batch in batches
        for row in batch["input_ids"]
    }


def test_a_file_without_splits_calibrates_on_what_is_not_measured(labeled_task, bert):
    read = as_texts(
        calibration_batches(Calibration(), labeled_task.model_copy(update={"length": 128}), bert)
    )
    assert len(read) == 20
    assert not read & set(load_examples(labeled_task).inputs)


def test_a_file_that_is_all_measured_on_is_refused(labeled_task, bert):
    with pytest.raises(PlainError, match="no examples other than those used for evaluation"):
        calibration_batches(Calibration(), labeled_task.model_copy(update={"samples": 50}), bert)


def test_a_classifier_calibrates_on_other_texts_where_they_are_named(labeled_task, bert, text):
    batches = calibration_batches(Calibration(text=text), labeled_task, bert)
    assert [batch["input_ids"].shape for batch in batches] == [(1, 32)]


def test_no_calibration_text_is_padded(labeled_task, bert):
    batches = calibration_batches(Calibration(), labeled_task, bert)
    assert batches
    for batch in batches:
        assert (
            batch["attention_mask"].all()
            and batch["input_ids"].shape == batch["attention_mask"].shape
        )


def test_images_are_model_inputs(tmp_path):
    folder = resolve_model(str(tiny("resnet", tmp_path)))
    batches = calibration_batches(Calibration(samples=20), ImageClassification(), folder)
    assert torch.cat([batch["pixel_values"] for batch in batches]).shape == (20, 1, 16, 16)


def test_an_image_model_cannot_calibrate_on_what_it_is_measured_on(tmp_path):
    folder = resolve_model(str(tiny("resnet", tmp_path)))
    with pytest.raises(PlainError, match="no examples other than"):
        calibration_batches(Calibration(split="test"), ImageClassification(), folder)


def test_what_is_no_task_has_no_calibration():
    with pytest.raises(TypeError):
        calibration_data_for(None, Calibration(), None, None, ignore_progress)
