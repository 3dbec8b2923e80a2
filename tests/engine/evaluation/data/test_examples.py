"""Classifiers that compare two texts read both, as in transformers."""

import json

import pytest
import torch

from engine.errors import PlainError
from engine.evaluation import calibration_batches, classification, evaluate
from engine.evaluation.classification import class_targets
from engine.evaluation.data.examples import load_examples
from engine.evaluation.measured import inputs_on_device
from engine.measurement import similarity
from engine.measurement.student_errors import evaluation_set
from engine.models.loading import load_pretrained, resolve_model, tokenizer_of
from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.recipe.tasks import Calibration, Training
from engine.training import loop
from engine.training.datasets import load_training_data
from tests.tiny import SENTENCES, tiny


@pytest.fixture
def data(tmp_path):
    rows = [
        {
            "text": SENTENCES[row % 3][: 10 + row],
            "text_pair": SENTENCES[(row + 1) % 3][: 30 - row // 2],
            "label": row % 3,
        }
        for row in range(36)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    return str(tmp_path / "pairs.json"), rows


def pair_task(source, **fields):
    return Recipe.from_dict(
        {
            "task": {
                "kind": "text-classification",
                "data": source,
                "text_pair_column": "text_pair",
                "length": 64,
                **fields,
            }
        }
    ).task


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_logits_are_those_of_transformers_for_each_pair(architecture, data, tmp_path):
    """BERT distinguishes the texts by token_type_ids; DistilBERT does not."""
    source, rows = data
    folder = resolve_model(str(tiny(architecture, tmp_path / architecture)))
    model, tokenizer = load_pretrained(folder).float(), tokenizer_of(folder)
    names = ("input_ids", "attention_mask", *(["token_type_ids"] if architecture == "bert" else []))

    def answer(row):
        inputs = tokenizer(
            row["text"],
            row["text_pair"],
            truncation=True,
            max_length=64,
            return_tensors="pt",
            return_token_type_ids=True,
        )
        return model(**{name: inputs[name] for name in names}).logits[0].argmax().item()

    found = evaluate(pair_task(source), model, folder)
    by_hand = [answer(row) for row in rows]
    assert found.guesses.tolist() == by_hand
    assert found.scores["accuracy"] == pytest.approx(
        sum(guess == row["label"] for guess, row in zip(by_hand, rows, strict=True)) / len(rows)
    )
    assert "pairs of texts cut at 64 tokens" in found.protocol.measure


def test_a_second_text_that_is_not_named_is_a_note_and_changes_nothing(data):
    source, rows = data
    alone = load_examples(pair_task(source, text_pair_column=""))
    assert alone.inputs == [row["text"] for row in rows]
    [note] = alone.notes
    assert (
        note.startswith(
            "The column text_pair of pairs.json was not read; if the model compares two texts"
        )
        and "task.text_pair_column" in note
    )
    assert load_examples(pair_task(source)).notes == ()


def test_calibration_and_training_see_both_texts(data, tmp_path):
    source, _ = data
    folder = resolve_model(str(tiny("bert", tmp_path / "bert")))
    task = pair_task(source, samples=12)
    batches = calibration_batches(Calibration(text=source, samples=6), task, folder)
    assert sum(len(batch["input_ids"]) for batch in batches) == 6
    assert all(
        batch["token_type_ids"].shape == batch["input_ids"].shape and batch["token_type_ids"].any()
        for batch in batches
    )
    lessons = load_training_data(task, None, folder, 20, Training(unlabelled=source))
    some = lessons.train.subset(torch.arange(len(lessons.train))[-3:])  # those without labels
    assert (
        some.inputs["token_type_ids"].shape
        == some.inputs["input_ids"].shape
        == some.inputs["attention_mask"].shape
    )
    assert (
        some.inputs["token_type_ids"].any(1).all()
        and not (some.inputs["token_type_ids"] * (1 - some.inputs["attention_mask"])).any()
    )


def test_a_run_with_training_and_its_mistakes_read_pairs(data, tmp_path):
    source, rows = data
    model = tiny("bert", tmp_path / "bert")
    fields = {"task": pair_task(source, samples=12).model_dump(), "device": "cpu", "speed": False}
    steps = [
        {"technique": "distill", "steps": 2},
        {"technique": "gptq", "bits": 4, "group_size": 48},
    ]
    outcome = run(
        Recipe.from_dict(
            {
                "model": str(model),
                "steps": steps,
                "calibration": {"text": source, "samples": 6},
                **fields,
            }
        )
    )
    assert outcome.summary.protocol.samples == 12 and outcome.tables.verdicts["count"].sum() == 12
    paper = evaluation_set(Recipe.from_dict(fields).task, resolve_model(str(model)))
    assert paper.examples.inputs[0] in [(row["text"], row["text_pair"]) for row in rows]
    assert paper.question(0)["text"] == " ⏎ ".join(paper.examples.inputs[0])


@pytest.mark.parametrize(("teacher", "student"), [("bert", "distilbert"), ("distilbert", "bert")])
def test_teacher_and_student_each_get_the_inputs_that_they_take(
    teacher, student, data, tmp_path, monkeypatch
):
    source, _ = data
    calls = {name: [] for name in (teacher, student)}

    def noting(inputs, model, device, given=inputs_on_device):
        found = given(inputs, model, device)
        calls[model.config.model_type].append(found)
        return found

    for module in (loop, classification, similarity):
        monkeypatch.setattr(module, "inputs_on_device", noting)
    step = {
        "technique": "distill",
        "student": str(tiny(student, tmp_path / "student")),
        "steps": 2,
        "batch": 4,
    }
    fields = {"task": pair_task(source, samples=12).model_dump(), "device": "cpu", "speed": False}
    run(
        Recipe.from_dict(
            {
                "model": str(tiny(teacher, tmp_path / "teacher")),
                "steps": [step],
                "calibration": {"text": source, "samples": 6},
                **fields,
            }
        )
    )
    assert all("token_type_ids" not in inputs for inputs in calls["distilbert"])
    assert (
        calls["distilbert"]
        and calls["bert"]
        and all(inputs["token_type_ids"].any() for inputs in calls["bert"])
    )


def test_a_missing_or_meaningless_second_column_is_refused(data):
    source, _ = data
    with pytest.raises(PlainError, match="no column 'premise'.*text_pair_column"):
        load_examples(pair_task(source, text_pair_column="premise"))
    with pytest.raises(PlainError, match="has no second text"):
        load_examples(pair_task("bundled:docs-libraries"))


def test_the_key_of_a_recipe_without_a_second_text_is_what_it_was(data):
    source, _ = data
    alone, pair = (
        Recipe.from_dict({"task": pair_task(source, text_pair_column=column).model_dump()})
        for column in ("", "text_pair")
    )
    assert (
        "text_pair_column" not in alone.model_dump_json(exclude=alone.default_fields)
        and alone.key() != pair.key()
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"num_labels": 1}, "gives one number, not classes"),
        ({"num_labels": 3, "problem_type": "regression"}, "gives 3 numbers, not classes"),
        (
            {"num_labels": 3, "problem_type": "multi_label_classification"},
            "gives several labels to one example",
        ),
    ],
)
def test_other_heads_are_refused_in_a_sentence(config, words, data, tmp_path):
    folder = resolve_model(str(tiny("bert", tmp_path / "bert", **config)))
    with pytest.raises(PlainError, match=words):
        class_targets(load_examples(pair_task(data[0])), load_pretrained(folder).config)
