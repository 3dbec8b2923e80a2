"""Mixed-precision training: what 16 bits lose is counted, and loss scaling brings it back."""

from typing import get_args

import pytest
import torch

from engine.errors import PlainError
from engine.models.layers import selected_layers
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.pipeline.run import run
from engine.step.run_context import RunContext
from engine.techniques.training.mixed_precision_training.config import (
    MixedPrecisionTraining,
    Variant,
)
from engine.techniques.training.mixed_precision_training.method import FIRST_SCALE, PrecisionRun
from engine.training import TrainingData, make_trainable
from tests.answers import forecast
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.training_examples import exercises

CPU = torch.device("cpu")
SHORT = {
    "technique": "mixed-precision-training",
    "steps": 4,
    "batch": 4,
    "look_every": 2,
    "rate": 1e-3,
}
VARIANTS = get_args(Variant)


@pytest.fixture
def run_step(folders, tmp_path):
    def run_recipe(architecture="bert", **step):
        return run(
            recipe_for(architecture, folders[architecture], tmp_path / "data", SHORT | step),
            report=lambda *_: None,
        )

    return run_recipe


@pytest.fixture
def training(folders, tmp_path):
    """One variant, ready to go, on examples drawn by lot."""

    def of(variant):
        recipe = recipe_for("bert", folders["bert"], tmp_path / "data", SHORT)
        folder = resolve_model(str(folders["bert"]))
        at = load_model(folder, CPU, torch.float32)
        training_data = TrainingData(exercises("bert"), exercises("bert", 8))
        return PrecisionRun(
            recipe.steps[0],
            variant,
            RunContext(recipe, folder),
            make_trainable(folder, at, selected_layers(at.layers, recipe.layers), CPU),
            training_data,
            0,
        )

    return of


@pytest.mark.parametrize("architecture", ["llama", "bert", "resnet"])
def test_all_variants_train_on_the_same_examples_and_only_those_that_cast_lose_slopes(
    architecture, run_step
):
    curves = run_step(architecture).tables.curves
    assert curves.phase.unique().tolist() == list(VARIANTS)
    first = curves[(curves.name == "loss") & (curves.step == 1)].set_index("phase").value
    assert first.to_numpy() == pytest.approx(first["float32"], rel=0.02)
    lost = curves[curves.name == "slopes lost"].groupby("phase").value.mean()
    assert (
        set(lost.index) == {"bfloat16", "float16", "float16 with loss scaling"}
        and lost.between(0, 1).all()
    )
    assert (curves[curves.name == "loss scale"].phase == "float16 with loss scaling").all() and (
        curves.name == "examples per second"
    ).any()


def test_loss_scaling_brings_back_what_float16_makes_zero(training):
    """Gradients are as small as a large model's: the head's outputs are divided by ten thousand."""
    plain, scaled = training("float16"), training("float16 with loss scaling")
    for each in (plain, scaled):
        each.model.classifier.weight.data *= 1e-4
    batch = plain.training_data.train
    assert plain.underflow_share(batch, 1.0) > 2 * scaled.underflow_share(
        batch, FIRST_SCALE
    ) and training("bfloat16").underflow_share(batch, 1.0) < plain.underflow_share(batch, 1.0)


def test_a_scale_that_is_too_large_is_halved_and_that_step_is_not_taken(training, monkeypatch):
    monkeypatch.setattr(
        "engine.techniques.training.mixed_precision_training.method.FIRST_SCALE", 2.0**40
    )
    each = training("float16 with loss scaling")
    before = each.trainable.weight("classifier").clone()
    each.run()
    scales = [row.value for row in each.rows if row.name == "loss scale"]
    assert scales == [2.0**40, 2.0**39, 2.0**38, 2.0**37] and torch.equal(
        before, each.trainable.weight("classifier")
    )


def test_sixteen_bit_weights_swallow_small_steps(training):
    whole, short = training("float32"), training("bfloat16 weights")
    moved = {}
    for each in (whole, short):
        object.__setattr__(each, "config", MixedPrecisionTraining(**SHORT | {"rate": 1e-5}))
        before = each.trainable.weight("bert.pooler.dense").bfloat16()
        each.run()
        moved[each.variant] = float(
            (each.trainable.weight("bert.pooler.dense").float() != before.float()).float().mean()
        )
    assert moved["float32"] > 0.9 > 0.5 > moved["bfloat16 weights"]


@for_each("variant", VARIANTS)
def test_the_variant_that_is_kept_is_the_result(variant, run_step):
    outcome = run_step(keep=variant, rate=1e-2)
    assert outcome.summary.result.loss != outcome.summary.baseline.loss
    held = outcome.tables.curves[outcome.tables.curves.phase == variant]
    assert outcome.summary.result.size_bytes > 0 and not held.empty


def test_a_learning_rate_of_zero_changes_nothing(run_step):
    outcome = run_step("resnet", rate=0, keep="float32")
    assert outcome.summary.result.loss == outcome.summary.baseline.loss


def test_the_result_of_a_training_that_broke_is_refused(training):
    each = training("float16")
    each.model.classifier.weight.data.fill_(float("inf"))
    each.run()
    with pytest.raises(
        PlainError,
        match=(
            "In float16 the loss became NaN or infinite at step 1; lower "
            r"Learning rate \(rate\), or keep another "
            "precision"
        ),
    ):
        each.check_finished()


def test_the_forecast_is_what_is_written(folders, tmp_path):
    threads = torch.get_num_threads()
    recipe = recipe_for("bert", folders["bert"], tmp_path / "data", SHORT)
    assert forecast(recipe).size_bytes == run(recipe).summary.result.size_bytes
    torch.set_num_threads(threads)
