import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from torch import nn

from engine.errors import Cancelled, PlainError
from engine.evaluation import evaluate
from engine.evaluation.classification import (
    class_targets,
    image_batches,
    macro_scores,
    text_quality,
)
from engine.evaluation.data.examples import Examples
from engine.evaluation.data.tokens import token_batches
from engine.evaluation.progress import ignore_progress
from engine.models.loading import load_pretrained, resolve_model, tokenizer_of
from engine.recipe.tasks import ImageClassification, TextClassification
from tests.cases import for_each
from tests.tiny import SENTENCES, tiny, tokenizer

TEXTS = [sentence[: 5 + 3 * index] for index in range(8) for sentence in SENTENCES]
LABELS = [index % 3 for index in range(len(TEXTS))]
TOKENIZER = tokenizer("bert")


@pytest.fixture
def task(tmp_path):
    return labeled_task(tmp_path, LABELS)


def labeled_task(folder, labels, **options):
    path = folder / "a.json"
    path.write_text(
        json.dumps(
            [{"text": text, "label": label} for text, label in zip(TEXTS, labels, strict=True)]
        )
    )
    return TextClassification(data=str(path), length=64, **options)


def config(*names, **options):
    return SimpleNamespace(id2label=dict(enumerate(names)), pad_token_id=0, **options)


class ByLength(nn.Module):
    """Says class 0, 1 or 2 by the number of tokens."""

    def __init__(self, **options):
        super().__init__()
        self.config = config("a", "b", "c", **options)
        self.asked = []

    def forward(self, input_ids, attention_mask):
        self.asked.append(len(input_ids))
        return SimpleNamespace(logits=nn.functional.one_hot(attention_mask.sum(1) % 3, 3).float())


def test_a_slow_computation_by_hand_gives_the_same(task, tmp_path):
    folder = resolve_model(str(tiny("bert", tmp_path / "model")))
    model, reader = load_pretrained(folder), tokenizer_of(folder)
    logits = torch.stack(
        [
            model(**reader(text, truncation=True, max_length=64, return_tensors="pt")).logits[0]
            for text in TEXTS
        ]
    )
    result = evaluate(task, model, folder)
    assert result.guesses.tolist() == logits.argmax(1).tolist()
    assert result.scores["accuracy"] == pytest.approx(accuracy_score(LABELS, logits.argmax(1)))
    assert result.scores["macro_f1"] == pytest.approx(
        f1_score(LABELS, logits.argmax(1), average="macro")
    )
    assert result.scores["loss"] == pytest.approx(
        nn.functional.cross_entropy(logits, torch.tensor(LABELS)).item(), rel=1e-4
    )
    assert result.protocol.samples == len(TEXTS)


def test_guesses_stand_in_the_order_of_the_data(task):
    guesses = text_quality(task, ByLength(), TOKENIZER, "cpu", ignore_progress).guesses
    assert guesses.tolist() == [
        len(row) % 3 for row in TOKENIZER(TEXTS, truncation=True, max_length=64)["input_ids"]
    ]
    assert guesses.dtype == np.int32


def test_nothing_is_padded_and_every_text_is_read_once():
    read = []
    for places, inputs in token_batches(TEXTS, TOKENIZER, 16, 5):
        assert (
            inputs["attention_mask"].all()
            and inputs["input_ids"].shape[1] <= 16
            and len(places) <= 5
        )
        read += places
    assert sorted(read) == list(range(len(TEXTS)))


def test_a_model_without_padding_token_reads_one_text_at_a_time(task):
    model = ByLength()
    model.config.pad_token_id = None
    text_quality(task, model, TOKENIZER, "cpu", ignore_progress)
    assert set(model.asked) == {1}


@for_each("seed", range(5))
def test_macro_precision_recall_and_f1_are_scikit_learns(seed):
    truth, guesses = np.random.default_rng(seed).integers(0, 6, (2, 40)) * np.array([[1], [2]]) % 9
    theirs = {
        "macro_precision": precision_score,
        "macro_recall": recall_score,
        "macro_f1": f1_score,
    }
    due = {
        name: score(truth, guesses, average="macro", zero_division=0)
        for name, score in theirs.items()
    }
    assert macro_scores(truth, guesses) == pytest.approx(due)


def test_images_are_prepared_in_the_models_colors(tmp_path):
    folder = resolve_model(str(tiny("resnet", tmp_path / "model")))
    measured = evaluate(ImageClassification(samples=30), load_pretrained(folder), folder)
    assert measured.protocol.samples == len(measured.guesses) == 30
    image = Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8))
    for channels in (1, 3):
        [(_, inputs)] = image_batches([image], grey_or_color, channels, 8)
        assert inputs["pixel_values"].shape[1] == channels


def grey_or_color(images, return_tensors):
    rows = [np.atleast_3d(np.asarray(image)).transpose(2, 0, 1) for image in images]
    return {"pixel_values": torch.tensor(np.stack(rows))}


def test_a_cancelled_measurement_stops(task, tmp_path):
    folder = resolve_model(str(tiny("bert", tmp_path / "model")))
    with pytest.raises(Cancelled, match="measuring accuracy"):
        evaluate(task, load_pretrained(folder), folder, cancelled=lambda: True)


def test_predictions_that_are_no_numbers_are_refused(task):
    model = ByLength()
    model.register_forward_hook(
        lambda module, given, out: SimpleNamespace(logits=out.logits * float("nan"))
    )
    with pytest.raises(PlainError, match="not numbers"):
        text_quality(task, model, TOKENIZER, "cpu", ignore_progress)


@pytest.mark.parametrize("limit", [{"max_position_embeddings": 63}, {"n_positions": 63}])
def test_texts_one_token_too_long_are_refused(task, limit):
    with pytest.raises(
        PlainError,
        match=r"longer than the 63 that this model reads; set "
        r"Maximum length \(task\.length\) to at most 63",
    ):
        text_quality(task, ByLength(**limit), TOKENIZER, "cpu", ignore_progress)


# --- labels of the data and of the model ----------------------------------------------------------


def examples(labels, names=(), numbered=True):
    return Examples([""] * len(labels), labels, names, "mail.csv", "", numbered)


def test_names_are_matched_whatever_their_order_and_case():
    given = examples([0, 1, 1], ("ham", "spam"), numbered=False)
    assert class_targets(given, config("SPAM", "Ham")).tolist() == [1, 0, 0]


def test_numbers_are_the_models_numbers():
    assert class_targets(examples([2, 0]), config("a", "b", "c")).tolist() == [2, 0]


def test_a_numbered_class_finds_a_model_without_names():
    assert class_targets(
        examples([1, 0], ("ham", "spam")), config("LABEL_0", "LABEL_1")
    ).tolist() == [
        1,
        0,
    ]


def test_a_class_that_does_not_occur_need_not_be_known():
    assert class_targets(examples([0], ("ham", "spam")), config("ham", "eggs")).tolist() == [0]


@for_each(
    ("given", "model", "words"),
    [
        (
            examples([0, 1], ("ham", "spam"), False),
            config("good", "bad"),
            "include ham, spam, .* its labels are good, bad",
        ),
        (
            examples([0, 1], ("ham", "spam"), False),
            config("LABEL_0", "LABEL_1"),
            "unnamed ones, 0 to 1",
        ),
        (
            examples([0, 3]),
            config("a", "b", "c"),
            "labels up to 3 but the model knows 3 classes, 0 to 2",
        ),
        (
            examples([0, 2], ("ham", "spam")),
            config("ham", "spam"),
            "a label 2 but names only 2 classes",
        ),
        (examples([0, 1]), config("LABEL_0"), "one number, not classes"),
    ],
)
def test_classes_that_do_not_fit_are_one_sentence(given, model, words):
    with pytest.raises(PlainError, match=words):
        class_targets(given, model)
