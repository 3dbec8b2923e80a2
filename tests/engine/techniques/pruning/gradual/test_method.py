"""Gradual pruning: shares as the schedules say, what was cut stays cut or comes back, and places to
stop are kept.
"""

import pytest
import torch

from engine.config.registry import TECHNIQUES
from engine.errors import Cancelled, PlainError
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.pipeline.run import run
from engine.techniques.implementations import compress
from engine.techniques.pruning.gradual.config import Gradual
from engine.techniques.pruning.unstructured.config import Magnitude
from engine.training import Quality, loop
from tests.answers import forecast
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import tiny

CPU = torch.device("cpu")
SHORT = {
    "technique": "gradual",
    "steps": 4,
    "prune_every": 1,
    "batch": 4,
    "sparsity": 0.6,
    "rate": 1e-2,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: tiny(name, tmp_path_factory.mktemp(name)) for name in ("llama", "bert", "resnet")}


@pytest.fixture
def run_step(folders, tmp_path):
    def run_recipe(
        architecture="bert", save=None, report=lambda *_: None, cancelled=lambda: False, **step
    ):
        recipe = recipe_for(architecture, folders[architecture], tmp_path / "data", SHORT | step)
        return run(recipe, save=save, report=report, cancelled=cancelled)

    return run_recipe


@for_each("scope", ["layer", "global"])
@for_each("schedule", ["one-shot", "iterative", "cubic"])
def test_each_pruning_step_follows_the_schedule_and_so_does_the_file(schedule, scope, run_step):
    outcome, config = (
        run_step(schedule=schedule, scope=scope),
        Gradual(**SHORT | {"schedule": schedule, "scope": scope}),
    )
    rows, layers = outcome.tables.schedule, outcome.tables.layers.dropna(subset="sparsity")
    cuts = rows[rows.event == "cut"]
    assert len(cuts) == config.pruning_steps and cuts.sparsity.tolist() == pytest.approx(
        [config.sparsity_at(i + 1) for i in range(config.pruning_steps)], abs=1e-3
    )
    assert (layers.sparsity * layers.parameters).sum() / layers.parameters.sum() == pytest.approx(
        0.6, abs=1e-3
    )
    if scope == "layer":
        assert layers.sparsity.tolist() == pytest.approx([0.6] * len(layers), abs=1e-2)
    assert rows.size_bytes.iloc[-1] == outcome.summary.result.size_bytes


def test_a_pattern_is_reached_by_whole_neighbours(run_step):
    layers = run_step(pattern="1:4", steps=8).tables.layers.dropna(subset="sparsity")
    assert layers.sparsity.tolist() == [0.75] * len(layers)


# --- what moves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "resnet"])
def test_no_sparsity_and_no_rate_change_nothing(architecture, run_step):
    outcome = run_step(architecture, sparsity=0, rate=0)
    assert (outcome.tables.layers.relative_error.dropna() == 0).all()
    assert outcome.summary.result.loss == outcome.summary.baseline.loss


def test_one_shot_at_rate_zero_is_magnitude_pruning(run_step, folders, tmp_path):
    gradual = run_step("resnet", schedule="one-shot", rate=0)
    other = run(
        recipe_for(
            "resnet",
            folders["resnet"],
            tmp_path / "data",
            {"technique": "magnitude", "sparsity": 0.6},
        )
    )
    assert (
        gradual.summary.result.loss == other.summary.result.loss
        and gradual.summary.result.size_bytes == other.summary.result.size_bytes
    )


def test_masked_weights_regrow_only_if_allowed(run_step):
    assert not run_step().tables.schedule.regrown.any()
    rows = run_step(regrow=True, steps=8).tables.schedule
    assert rows.regrown.max() > 0 and rows.sparsity.iloc[-1] == pytest.approx(0.6, abs=1e-2)


def test_gates_remove_more_than_was_asked_for(run_step):
    outcome = run_step(
        "resnet", regularizer="l0", strength=1e-3, steps=20, prune_every=10, rate=1e-2, sparsity=0.1
    )
    assert (
        outcome.tables.schedule.sparsity.iloc[-1] > 0.12
        and Gradual(regularizer="l0").size_is_at_most
    )


def test_gates_that_all_close_give_a_message(run_step):
    with pytest.raises(
        PlainError,
        match=r"Every gate of \S+ has closed; lower .*\(strength\), which is 1, or .*\(rate\)",
    ):
        run_step(
            "resnet",
            regularizer="l0",
            strength=1.0,
            steps=20,
            prune_every=10,
            rate=1e-2,
            sparsity=0.1,
        )


def test_labels_do_not_change_training_on_the_teacher_alone(
    run_step, folders, tmp_path, monkeypatch
):
    taught = run_step(distill_weight=1.0).summary.result.loss
    labelled = run_step().summary.result.loss
    monkeypatch.setattr(
        "engine.training.datasets.class_targets",
        lambda examples, config: torch.arange(len(examples.labels)) % 2,
    )
    assert (
        run_step(distill_weight=1.0).summary.result.loss == taught
        and run_step().summary.result.loss != labelled
    )


def test_statistics_norms_and_biases_are_written_and_loaded(run_step, folders, tmp_path):
    outcome = run_step("resnet", save=tmp_path / "saved")
    before, after = (
        load_model(resolve_model(str(folder)), CPU, torch.float32).plain
        for folder in (folders["resnet"], tmp_path / "saved")
    )
    assert before.keys() == after.keys() and all(
        value.dtype == after[name].dtype for name, value in before.items()
    )
    moved = {
        name.rpartition(".")[2]
        for name, value in before.items()
        if not torch.equal(value, after[name])
    }
    assert {"running_mean", "running_var", "weight", "bias", "num_batches_tracked"} <= moved
    again = run(recipe_for("resnet", tmp_path / "saved", tmp_path / "data"))
    assert again.summary.result.loss == outcome.summary.result.loss


def test_runs_repeat_to_the_bit(run_step):
    first, second = (run_step("resnet", regrow=True) for _ in range(2))
    assert (
        first.tables.schedule.equals(second.tables.schedule)
        and first.summary.result.loss == second.summary.result.loss
    )


def test_zeros_survive_a_quantizer_that_follows(folders, tmp_path):
    outcome = run(
        recipe_for(
            "bert", folders["bert"], tmp_path / "data", SHORT, {"technique": "round-to-nearest"}
        )
    )
    layers = outcome.tables.layers.dropna(subset="sparsity")
    assert (layers.sparsity >= 0.59).all()


def test_what_was_made_smaller_learns_too(folders, tmp_path):
    outcome = run(
        recipe_for(
            "llama",
            folders["llama"],
            tmp_path / "data",
            {"technique": "structured", "what": "neurons"},
            SHORT,
        )
    )
    assert outcome.tables.schedule.sparsity.iloc[-1] == pytest.approx(0.6, abs=1e-2)


# --- where it stops -------------------------------------------------------------------------------


def test_it_stops_cutting_at_a_size_and_goes_on_learning(run_step):
    whole = run_step(sparsity=0, steps=1).summary.result.size_bytes
    outcome = run_step(target_mb=0.8 * whole / 1e6, steps=8)
    rows = outcome.tables.schedule
    assert outcome.summary.result.size_bytes <= 0.8 * whole and rows.sparsity.iloc[-1] < 0.6
    assert rows.event.tolist().count("size reached") == 1 and rows.step.iloc[-1] == 8


def test_it_goes_back_to_the_last_cut_that_held(run_step, monkeypatch, tmp_path):
    # before; then cut and trained, three times; went back
    falling = iter([0.9, 0.9, 0.9, 0.8, 0.85, 0.5, 0.4, 0.85])
    monkeypatch.setattr(
        "engine.techniques.pruning.gradual.method.held_out_quality",
        lambda *_: Quality("accuracy", next(falling)),
    )
    outcome = run_step(floor=0.8)
    rows = outcome.tables.schedule
    assert rows.event.tolist() == [
        "before",
        "cut",
        "trained",
        "cut",
        "trained",
        "cut",
        "below the floor",
        "went back",
    ]
    held = rows.sparsity[rows.event == "trained"].iloc[-1]
    layers = outcome.tables.layers.dropna(subset="sparsity")
    assert (
        rows.sparsity.iloc[-1]
        == held
        == pytest.approx((layers.sparsity * layers.parameters).sum() / layers.parameters.sum())
    )


@pytest.mark.parametrize(
    ("qualities", "words"),
    [
        ([0.0], "none of the held-out examples right"),
        ([0.9, 0.1, 0.1], "After the first pruning step and 1 training steps"),
    ],
)
def test_a_floor_that_cannot_be_kept_is_refused(qualities, words, run_step, monkeypatch):
    said = iter(qualities)
    monkeypatch.setattr(
        "engine.techniques.pruning.gradual.method.held_out_quality",
        lambda *_: Quality("accuracy", next(said)),
    )
    with pytest.raises(PlainError, match=words) as refused:
        run_step(floor=0.8)
    assert "\n" not in str(refused.value)


def test_a_size_out_of_reach_is_refused_before_training(run_step, monkeypatch):
    monkeypatch.setattr(loop, "make_optimizer", lambda *_: pytest.fail("it trained"))
    with pytest.raises(
        PlainError,
        match=(
            r"With 60% removed, the model's file still takes [\d.]+ kB, more than the 0\.001 MB "
            r"of Target size \(target_mb\)"
        ),
    ):
        run_step(target_mb=0.001)


def test_a_layer_is_not_emptied(folders, tmp_path):
    model = tiny(
        "resnet", tmp_path / "model", num_channels=1, hidden_sizes=[2, 2], embedding_size=2
    )
    with pytest.raises(PlainError, match=r"^resnet\.\S+: No weight would be left"):
        run(recipe_for("resnet", model, tmp_path / "data", SHORT | {"sparsity": 0.99}))


def stopping(steps: int) -> dict:
    """A report, and whether the run is cancelled: after so many training steps."""
    heard = []
    return {
        "report": lambda event: heard.append(getattr(event, "loss", None) is not None),
        "cancelled": lambda: sum(heard) >= steps,
    }


@pytest.mark.parametrize("pattern", [{}, {"pattern": "1:4", "storage": "n-of-m"}])
def test_a_canceled_training_keeps_the_current_model(pattern, run_step, tmp_path):
    outcome = run_step(steps=40, prune_every=10, save=tmp_path / "model", **pattern, **stopping(5))
    rows, layers = outcome.tables.schedule, outcome.tables.layers.dropna(subset="sparsity")
    assert (
        rows.step.tolist() == [0, 0, 5]
        and rows.event.iloc[-1] == "trained"
        and outcome.summary.ended_early
    )
    left = (layers.sparsity * layers.parameters).sum() / layers.parameters.sum()
    assert left == pytest.approx(rows.sparsity.iloc[-1]) and 0 < left < 0.6
    said = (
        f"Training was ended at step 5 of 40, as requested; {left:.0%} of the weights were "
        "zero then"
    )
    assert any(note.startswith(said) for note in outcome.summary.notes)


def test_a_cancelled_training_goes_back_to_what_held_and_keeps_nothing_where_nothing_did(
    run_step, monkeypatch
):
    # before; cut, trained, cut; when it is cancelled; went back
    falling = iter([0.9, 0.9, 0.9, 0.8, 0.5, 0.9])
    monkeypatch.setattr(
        "engine.techniques.pruning.gradual.method.held_out_quality",
        lambda *_: Quality("accuracy", next(falling)),
    )
    rows = run_step(floor=0.8, steps=40, prune_every=10, **stopping(15)).tables.schedule
    assert (
        rows.event.tolist()[-2:] == ["below the floor", "went back"]
        and rows.sparsity.iloc[-1] == rows.sparsity.iloc[2]
    )
    falling = iter([0.9, 0.5, 0.5])
    with pytest.raises(Cancelled):
        run_step(floor=0.8, steps=40, prune_every=10, **stopping(5))


# --- forecasts and looks --------------------------------------------------------------------------


def test_the_forecast_is_what_is_written(run_step, folders, tmp_path):
    recipe = recipe_for("bert", folders["bert"], tmp_path / "data", SHORT)
    assert forecast(recipe).size_bytes == run_step().summary.result.size_bytes


def test_more_steps_take_longer(folders, tmp_path):
    few, many = (
        forecast(
            recipe_for("bert", folders["bert"], tmp_path / "data", SHORT | {"steps": steps})
        ).seconds
        for steps in (4, 4000)
    )
    assert many > 5 * few


def test_a_look_at_one_layer_is_magnitude_at_the_final_share():
    weight = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        compress(Gradual(sparsity=0.6), weight).to_dense(),
        compress(Magnitude(sparsity=0.6), weight).to_dense(),
    )
    assert TECHNIQUES["gradual"].trains


def test_every_curve_row_is_streamed_during_training(folders, tmp_path):
    heard = []
    step = {"technique": "gradual", "sparsity": 0.5, "steps": 4, "prune_every": 2, "batch": 4}
    moments = run(
        recipe_for("resnet", folders["resnet"], tmp_path / "data", step), stream=heard.extend
    ).tables.schedule
    assert [row.value for row in heard if row.name == "zero"] == moments.sparsity.tolist()
    assert [row.value for row in heard if row.name == "accuracy"] == moments.quality.tolist()
