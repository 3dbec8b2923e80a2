"""Distillation and fine-tuning: weights of the loss terms, settings, end of training and data."""

import pandas as pd
import pytest
import torch

from engine.errors import PlainError
from engine.models.loaded_model import load_model, multiplies_bfloat16
from engine.models.loading import resolve_model
from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.recipe.tasks import ImageClassification, Training
from engine.training import load_training_data, loop
from engine.training.losses import (
    IGNORE_INDEX,
)
from tests.answers import forecast
from tests.cases import for_each
from tests.distillation import CPU, FINE, KINDS, curve, error_message
from tests.recipes import few_digits, recipe_for
from tests.tiny import tiny

# --- weights of the terms -------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", KINDS)
def test_a_teacher_with_weight_zero_gives_the_curve_of_fine_tuning(architecture, run_step):
    student, plain = (
        run_step(architecture, student="same", distill_weight=0),
        run_step(architecture, technique="fine-tune"),
    )
    assert curve(student) == curve(plain) and len(curve(plain)) == 4
    assert student.summary.result.loss == plain.summary.result.loss


def test_labels_do_not_change_training_on_the_teacher_alone(run_step, monkeypatch):
    one = run_step(distill_weight=1)
    monkeypatch.setattr(
        "engine.techniques.distillation.distill.distillation_loss.label_loss",
        lambda logits, targets: 1 / 0,
    )
    assert curve(run_step(distill_weight=1)) == curve(one)


def test_the_loss_is_the_weighted_sum_of_its_terms(run_step):
    outcome = run_step(distill_weight=0.3, features="mse", feature_weight=0.5, attention_weight=2.0)
    terms = {
        name: torch.tensor(curve(outcome, name))
        for name in ("loss", "labels", "teacher", "features", "attention")
    }
    due = (
        0.7 * terms["labels"]
        + 0.3 * terms["teacher"]
        + 0.5 * terms["features"]
        + 2 * terms["attention"]
    )
    torch.testing.assert_close(terms["loss"], due, rtol=1e-4, atol=1e-5)


def test_a_student_approaches_its_teacher(run_step):
    outcome = run_step(
        "resnet",
        student="same",
        start="random",
        distill_weight=1,
        steps=40,
        batch=16,
        temperature=4,
    )
    assert sum(curve(outcome)[-5:]) < 0.5 * sum(curve(outcome)[:5])


# --- precision ------------------------------------------------------------------------------------


def test_bfloat16_products_are_close_and_replaced_by_float32_where_they_are_not_faster(
    run_step, monkeypatch
):
    plain, half = curve(run_step("resnet")), curve(run_step("resnet", products="bfloat16"))
    assert plain == curve(run_step("resnet", products="float32"))
    assert half == pytest.approx(plain, rel=0.1) and (half == plain) is not multiplies_bfloat16(CPU)
    monkeypatch.setattr(
        "engine.techniques.training.training_setup.multiplies_bfloat16", lambda device: False
    )
    outcome = run_step("resnet", products="bfloat16")
    assert curve(outcome) == plain and any(
        "so training had its products in float32" in note for note in outcome.summary.notes
    )


# --- further steps --------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", KINDS)
def test_a_student_can_be_quantized_in_the_same_run(architecture, run_step, folders, tmp_path):
    small = run_step(
        architecture, {"technique": "bitsandbytes", "block_size": 64}, save=tmp_path / "small"
    )
    assert small.summary.result.size_bytes < run_step(architecture).summary.result.size_bytes
    assert (
        load_model(resolve_model(str(tmp_path / "small")), CPU, torch.float32).parameters
        == small.summary.result.parameters
    )


@pytest.mark.parametrize("architecture", KINDS)
def test_a_structurally_pruned_model_can_be_fine_tuned(architecture, folders, tmp_path):
    recipe = recipe_for(
        architecture,
        folders[architecture],
        tmp_path / "data",
        {"technique": "structured", "share": 0.5},
        FINE,
    )
    outcome, pruned = (
        run(recipe, save=tmp_path / "small"),
        run(recipe.model_copy(update={"steps": recipe.steps[:1]})),
    )
    assert forecast(recipe).size_bytes == outcome.summary.result.size_bytes
    assert (
        outcome.summary.result.parameters == pruned.summary.result.parameters
        and len(curve(outcome)) == 4
    )


# --- settings -------------------------------------------------------------------------------------


@for_each("architecture", KINDS)
@for_each("setting", ["online", "self", "black-box", "adversarial"])
def test_every_setting_trains_a_student_of_every_kind(setting, architecture, run_step):
    outcome = run_step(architecture, setting=setting, written=8, prompt=4)
    names = set(outcome.tables.curves["name"])
    assert (
        outcome.summary.result.parameters < outcome.summary.baseline.parameters
        and {"loss", "rate", "examples per second"} <= names
    )


def test_mutual_learning_trains_both_models(run_step):
    outcome = run_step(setting="online", student="same", start="random")
    assert len(curve(outcome, phase="teacher")) == len(curve(outcome)) == 4
    assert curve(outcome, phase="teacher") != curve(outcome)


def test_each_generation_trains_on_the_previous_one(run_step):
    outcome = run_step(
        setting="self", generations=3, student="same", start="random", distill_weight=1
    )
    losses = [curve(outcome, phase=f"generation {number}") for number in (1, 2, 3)]
    assert all(len(each) == 4 for each in losses) and losses[0] != losses[1] != losses[2]


@pytest.mark.parametrize("stopped", ["training", "asking-teacher"])
def test_canceled_generations_keep_the_best_of_all(run_step, monkeypatch, tmp_path, stopped):
    """Generation 1 looks five times and is best at step 3, generation 2 is poor: what is written is
    what the first one was.
    """
    values, heard, states = iter([0.1, 0.2, 0.3, 0.9, 0.8]), [], []

    def fixed_quality(model, examples):
        states.append(model.state_dict()["classifier.1.bias"].clone())
        return loop.Quality("accuracy", next(values, 0.2))

    monkeypatch.setattr("engine.training.trainer.held_out_quality", fixed_quality)
    recipe = {
        "setting": "self",
        "steps": 4,
        "student": "same",
        "start": "random",
        "training": Training(samples=16),
    }

    def after() -> bool:
        return any(
            event.stage == stopped and (stopped != "training" or event.network == "generation 2")
            for event in heard
        )

    def report(event):
        heard.extend([event] * (len(states) >= 5))  # once the first generation is finished

    outcome = run_step(
        "resnet", cancelled=after, report=report, save=tmp_path / "student", **recipe
    )
    (said,) = (note for note in outcome.summary.notes if "as requested" in note)
    kept = load_model(resolve_model(str(tmp_path / "student")), CPU, torch.float32).plain[
        "classifier.1.bias"
    ]
    assert "of generation 2, as requested" in said
    assert said.endswith(
        "the best of all generations is kept: what generation 1 knew at step 3, with "
        "accuracy 90.0%."
    )
    assert torch.equal(kept, states[3])


def test_every_teacher_changes_the_loss(run_step, folders, tmp_path):
    other = tiny("bert", tmp_path / "other", seed=9)
    one, both = (
        run_step(distill_weight=1),
        run_step(distill_weight=1, setting="several", teachers=str(other)),
    )
    same = run_step(distill_weight=1, setting="several", teachers=str(folders["bert"]))
    assert curve(one) == pytest.approx(curve(same), abs=1e-5) and curve(one) != pytest.approx(
        curve(both), abs=1e-3
    )


def test_a_discriminator_with_weight_zero_changes_nothing(run_step):
    assert curve(run_step(setting="adversarial", adversarial_weight=0.0)) == curve(run_step())


# --- end of training ------------------------------------------------------------------------------


def test_a_canceled_training_keeps_the_best_checkpoint_and_loads(run_step, tmp_path):
    heard = []

    def hear(event):
        heard.extend([event] if event.stage == "training" else [])

    outcome = run_step(
        "resnet",
        steps=200,
        cancelled=lambda: len(heard) > 30,
        report=hear,
        save=tmp_path / "student",
    )
    assert outcome.summary.ended_early and len(curve(outcome)) == 31
    assert any(
        note.startswith("Training was ended at step 31 of 200, as requested")
        for note in outcome.summary.notes
    )
    assert (
        load_model(resolve_model(str(tmp_path / "student")), CPU, torch.float32).parameters
        == outcome.summary.result.parameters
    )


def test_the_best_checkpoint_is_kept_and_the_latest_of_equal_ones(run_step, monkeypatch, tmp_path):
    values, states = iter([0.1, 0.2, 0.3, 0.9, 0.4, 0.9, 0.2]), []

    def fixed_quality(model, examples):
        states.append(model.state_dict()["classifier.1.bias"].clone())
        return loop.Quality("accuracy", next(values, 0.0))

    monkeypatch.setattr("engine.training.trainer.held_out_quality", fixed_quality)
    run_step("resnet", steps=20, batch=8, save=tmp_path / "student")
    kept = load_model(resolve_model(str(tmp_path / "student")), CPU, torch.float32).plain[
        "classifier.1.bias"
    ]
    assert len(states) == 11 and torch.equal(kept, states[5]) and not torch.equal(kept, states[-1])


def test_early_stopping_ends_training_with_a_note(run_step, monkeypatch):
    values = iter([0.5, 0.6])
    monkeypatch.setattr(
        "engine.training.trainer.held_out_quality",
        lambda *_: loop.Quality("accuracy", next(values, 0.1)),
    )
    outcome = run_step("resnet", steps=40, patience=2)
    assert len(curve(outcome)) == 12  # looks every 4 steps: best at 4, nothing gained at 8 and 12
    assert any(
        "Training ended at step 12 of 40: nothing was gained since step 4" in note
        for note in outcome.summary.notes
    )


def test_a_nan_loss_stops_training_at_the_best_checkpoint(run_step, monkeypatch):
    from engine.techniques.distillation.distill import distillation_loss as tuition

    calls, by_label = [], tuition.batch_label_loss

    def wild(logits, batch):
        calls.append(1)
        return by_label(logits, batch) * (float("nan") if len(calls) > 12 else 1.0)

    monkeypatch.setattr(
        "engine.techniques.distillation.distill.distillation_loss.batch_label_loss", wild
    )
    outcome = run_step("resnet", steps=20, batch=8)
    assert len(curve(outcome)) == 12
    assert any(
        note.startswith("The loss became NaN or infinite at training step 13")
        and "the best so far" in note
        for note in outcome.summary.notes
    )


def test_a_nan_loss_at_the_first_step_fails_the_run(run_step, monkeypatch):
    monkeypatch.setattr(
        "engine.techniques.distillation.distill.distillation_loss.batch_label_loss",
        lambda logits, batch: logits.sum() * float("nan"),
    )
    assert "NaN or infinite at training step 1; lower Learning rate (rate)" in error_message(
        run_step
    )


# --- data -----------------------------------------------------------------------------------------


@pytest.fixture
def write_labeled_csv(tmp_path):
    def write_csv(name, labels, texts=None):
        texts = texts or [f"text {number} of many words" for number in range(len(labels))]
        path = tmp_path / name
        pd.DataFrame({"body": texts, "class": labels}).to_csv(path, index=False)
        return str(path)

    return write_csv


COLUMNS = {"text_column": "body", "label_column": "class"}


def test_local_files_are_used_for_training_and_validation_for_the_given_epochs(
    run_step, write_labeled_csv
):
    data = {
        "train": write_labeled_csv("train.csv", [0, 1, 2, 0] * 5),
        "validation": write_labeled_csv("validation.csv", [0, 1, 2] * 2),
        **COLUMNS,
        "epochs": 1.5,
    }
    outcome = run_step(training=data, batch=4)
    assert len(curve(outcome)) == 8  # 1.5 times 20 examples, 4 a step, rounded up
    assert set(pd.Series(curve(outcome, "accuracy")) * 6 % 1) == {0.0}


def test_texts_without_labels_are_labeled_by_the_teacher(run_step, write_labeled_csv):
    data = {
        "train": write_labeled_csv("train.csv", [0, 1, 2, 0] * 5),
        "unlabelled": write_labeled_csv("more.csv", [""] * 12),
        **COLUMNS,
    }
    plain = run_step(
        training={name: value for name, value in data.items() if name != "unlabelled"},
        distill_weight=1,
    )
    assert curve(run_step(training=data, distill_weight=1)) != curve(plain)
    assert "remove Unlabeled examples (training.unlabelled)" in error_message(
        run_step, technique="fine-tune", training=data
    )


def test_images_without_labels_are_added(folders, tmp_path):
    data = Training(**few_digits(20, 0, tmp_path), unlabelled="bundled:digits")
    train = load_training_data(
        ImageClassification(), None, resolve_model(str(folders["resnet"])), 100, data
    ).train
    assert (
        train.inputs["pixel_values"].shape == (120, 1, 16, 16)
        and (train.targets == IGNORE_INDEX).sum() == 100
    )


@for_each(
    ("labels", "words"),
    [
        ([1] * 8, "are of one class, LABEL_1, so there is nothing to tell apart"),
        ([0, 7, 1, 2], "has labels up to 7 but the model knows 3 classes"),
        ([""] * 6, "has no labels"),
        ([], "has no rows"),
        ([0], "has 1 labeled examples to train on"),
    ],
)
def test_unusable_training_data_gives_a_message(labels, words, run_step, write_labeled_csv):
    assert words in error_message(
        run_step, training={"train": write_labeled_csv("train.csv", labels), **COLUMNS}
    )


def test_data_without_a_label_column_gives_a_message(run_step, write_labeled_csv):
    data = {"train": write_labeled_csv("train.csv", [0, 1] * 4), "text_column": "body"}
    assert "has no column 'label'; its columns are body, class" in error_message(
        run_step, training=data
    )


def test_epochs_and_training_data_need_a_step_that_trains():
    with pytest.raises(PlainError, match="no step trains"):
        Recipe.from_dict({"training": {"epochs": 1}})
    with pytest.raises(PlainError, match="which counts steps"):
        Recipe.from_dict({"training": {"epochs": 1}, "steps": [{"technique": "gradual"}]})
    assert Recipe.from_dict(
        {"steps": [{"technique": "gradual"}], "training": {"train": "a.csv"}}
    ).training == Training(train="a.csv")


def test_a_recipe_without_training_data_keeps_its_key():
    plain = Recipe.from_dict({"steps": [{"technique": "bitsandbytes"}]})
    assert plain.key() != plain.model_copy(update={"training": Training(epochs=1)}).key()
    assert "training" not in plain.to_yaml()
