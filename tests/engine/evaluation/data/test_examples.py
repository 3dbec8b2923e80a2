"""Classifiers that compare two texts read both, as in transformers."""

import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from engine.errors import PlainError
from engine.evaluation import calibration_batches, classification, evaluate
from engine.evaluation.classification import class_targets
from engine.evaluation.data import examples
from engine.evaluation.data.examples import cell_image, images_in, load_examples, load_text
from engine.evaluation.measured import inputs_on_device
from engine.measurement import similarity
from engine.measurement.student_errors import evaluation_set
from engine.models.loading import load_pretrained, resolve_model, tokenizer_of
from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.recipe.tasks import (
    Calibration,
    ImageClassification,
    TextClassification,
    Training,
)
from engine.training import loop
from engine.training.datasets import load_training_data
from tests.cases import for_each
from tests.data_files import ROWS, assert_refused, png, save_rows
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
    training_data = load_training_data(task, None, folder, 20, Training(unlabelled=source))
    some = training_data.train.subset(
        torch.arange(len(training_data.train))[-3:]
    )  # those without labels
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

    def record_inputs(inputs, model, device, given=inputs_on_device):
        found = given(inputs, model, device)
        calls[model.config.model_type].append(found)
        return found

    for module in (loop, classification, similarity):
        monkeypatch.setattr(module, "inputs_on_device", record_inputs)
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


def test_a_recipe_without_a_second_text_keeps_its_key(data):
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


def test_a_fingerprint_follows_the_text_and_not_the_name(tmp_path):
    for name, text in (("a.txt", "x y"), ("b.txt", "x y"), ("c.txt", "x z")):
        (tmp_path / name).write_text(text)
    a, b, c = (load_text(str(tmp_path / name)).fingerprint for name in ("a.txt", "b.txt", "c.txt"))
    assert a == b != c


def test_a_fingerprint_follows_the_labels(tmp_path):
    one, other = (
        save_rows(tmp_path, "a.csv"),
        save_rows(tmp_path, "b.csv", ROWS | {"label": [0, 1, 1, 1]}),
    )
    assert (
        load_examples(TextClassification(data=one)).fingerprint
        != load_examples(TextClassification(data=other)).fingerprint
    )


def test_a_file_sorted_by_label_loses_no_class(tmp_path):
    source = save_rows(tmp_path, "a.csv", {"text": ["x"] * 300, "label": sorted([0, 1, 2] * 100)})
    assert set(load_examples(TextClassification(data=source, samples=50)).labels) == {0, 1, 2}


def test_what_is_skipped_is_what_was_drawn_before(tmp_path):
    texts = [f"text {i}" for i in range(100)]
    task = TextClassification(
        data=save_rows(tmp_path, "a.csv", {"text": texts, "label": [0] * 100}), samples=60
    )
    first, rest = load_examples(task).inputs, load_examples(task, skip=60).inputs
    assert not set(first) & set(rest)
    assert sorted(first + rest) == sorted(texts)


def test_named_labels_are_numbered_in_the_alphabet(tmp_path):
    examples = load_examples(
        TextClassification(
            data=save_rows(tmp_path, "a.csv", {"text": ["x"] * 3, "label": ["spam", "ham", "spam"]})
        )
    )
    assert (examples.names, examples.labels, examples.numbered) == (
        ("ham", "spam"),
        [1, 0, 1],
        False,
    )


def test_digits_as_words_are_numbers(tmp_path):
    source = save_rows(tmp_path, "a.json", {"text": ["x"] * 3, "label": ["10", "9", "2"]})
    assert load_examples(TextClassification(data=source)).labels == [10, 9, 2]


def test_images_come_as_bytes_as_paths_and_as_pixels(tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "one.png")
    pd.DataFrame({"image": [{"bytes": png(image), "path": None}], "label": [1]}).to_parquet(
        tmp_path / "a.parquet"
    )
    pd.DataFrame({"image": [pixels.tolist()], "label": [1]}).to_parquet(tmp_path / "b.parquet")
    pd.DataFrame({"image": ["one.png"], "label": [1]}).to_csv(tmp_path / "c.csv", index=False)
    read = [
        load_examples(ImageClassification(data=str(tmp_path / name)))
        for name in ("a.parquet", "b.parquet", "c.csv")
    ]
    assert all(np.array_equal(np.asarray(examples.inputs[0]), pixels) for examples in read)
    assert len({examples.fingerprint for examples in read}) == 1


@for_each(
    ("labels", "words"),
    [
        ([0, -1], ["holds the label -1", "choose another"]),
        ([0.5, 1], ["0.5"]),
        ([None, None], ["label"]),
        (["ham", 1.0], ["mixes names and numbers"]),
    ],
)
def test_labels_that_are_none_are_one_sentence(tmp_path, labels, words):
    (tmp_path / "a.json").write_text(
        json.dumps([{"text": "x", "label": label} for label in labels])
    )
    assert_refused(lambda: load_examples(TextClassification(data=str(tmp_path / "a.json"))), *words)


@pytest.mark.parametrize("cell", ["missing.png", "a.csv", "12"])
def test_an_unreadable_image_is_one_sentence(tmp_path, cell):
    source = save_rows(tmp_path, "a.csv", {"image": [cell], "label": [0]})
    assert_refused(lambda: load_examples(ImageClassification(data=source)), "The image")


def test_plain_text_has_no_labels(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    assert_refused(
        lambda: load_examples(TextClassification(data=str(tmp_path / "a.txt"))), "without columns"
    )


def test_labelled_rows_without_any_text_are_refused(tmp_path):
    for texts in (["", " "], [None, None]):
        task = TextClassification(
            data=save_rows(tmp_path, "a.json", {"text": texts, "label": [0, 1]})
        )
        assert_refused(
            lambda task=task: load_examples(task),
            "a.json has no text in its column 'text'",
            "text_column",
        )
    one = TextClassification(
        data=save_rows(tmp_path, "b.json", {"text": ["", "word"], "label": [0, 1]})
    )
    assert load_examples(one).inputs.count("") == 1


def test_large_images_pipes_and_damaged_ones_are_refused_before_they_are_decoded(
    tmp_path, monkeypatch
):
    pixels = np.zeros((8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "bomb.ppm").write_bytes(b"P6 60000 60000 255\n")
    os.mkfifo(tmp_path / "pipe.png")
    assert_refused(lambda: cell_image("bomb.ppm", tmp_path), "bomb.ppm", "image")
    assert_refused(lambda: cell_image("pipe.png", tmp_path), "not a regular file")
    monkeypatch.setattr(examples, "MAX_PIXELS_IN_ALL", 200)
    assert len(images_in(["a.png"] * 3, tmp_path)) == 3
    assert_refused(lambda: images_in(["a.png"] * 4, tmp_path), "200 pixels", "task.samples")
    monkeypatch.setattr(examples, "MAX_PIXELS", 63)
    assert_refused(lambda: cell_image("a.png", tmp_path), "8 x 8 pixels", "63")


@for_each("empty", ["", "  ", None])
@for_each("labels", [["no", "yes"], [0, 1]])
def test_rows_without_a_label_are_skipped_and_counted(empty, labels, tmp_path):
    rows = [{"text": f"text {row}", "label": labels[row % 2]} for row in range(240)]
    rows[17]["label"] = empty
    path = tmp_path / "a.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    examples = load_examples(TextClassification(data=str(path), samples=240))
    assert len(examples.inputs) == len(examples.labels) == 239 and "text 17" not in examples.inputs
    assert [examples.labels[row] for row in (0, 1, 17)] == [0, 1, 0]  # row 18 moves up
    [note] = examples.notes
    assert note == "1 of 240 rows has no label in the column label of a.csv and is skipped."


def test_numbers_in_a_column_with_empty_cells_stay_classes(write_file):
    """Tables with missing numbers write the others as 1.0."""
    source = write_file("a.csv", b"text,label\na,1.0\nb,\nc,0.0\n")
    assert load_examples(TextClassification(data=source)).labels == [1, 0]


def test_a_column_without_any_label_is_refused(write_file):
    with pytest.raises(PlainError, match="has no labels; choose another Label column"):
        load_examples(TextClassification(data=write_file("a.csv", b"text,label\na,\nb,\n")))


def test_null_words_are_empty_among_numbers_and_labels_among_names(tmp_path):
    def labels(*cells):
        (tmp_path / "a.csv").write_text(
            "text,label\n" + "".join(f"a text,{cell}\n" for cell in cells)
        )
        return load_examples(TextClassification(data=str(tmp_path / "a.csv")))

    assert labels("0", "NA", "1", "NaN").labels == [0, 1] and labels("no", "NA", "yes").names == (
        "NA",
        "no",
        "yes",
    )
    with pytest.raises(PlainError, match="label"):
        labels("0", "inf")


def test_a_second_column_of_texts_is_noted_under_any_name(tmp_path):
    rows = [
        {
            "question": "what is a word",
            "answer": "a unit of language",
            "label": number % 2,
            "id": "x1",
        }
        for number in range(4)
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    task = TextClassification(data=str(tmp_path / "a.json"), text_column="question")
    assert any(
        "column answer" in note and "text_pair_column" in note for note in load_examples(task).notes
    )
