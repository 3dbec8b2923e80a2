"""Metrics after each step equal those of a run that ends with that step."""

import shutil

import pandas as pd
import pytest

from engine.errors import Cancelled, PlainError
from engine.pipeline.run import run
from engine.recipe import Recipe
from tests.answers import forecast
from tests.recipes import recipe_for
from tests.steps import ANY

NEURONS = {"technique": "structured", "what": "neurons", "score": "l2"}
PRUNED = {"technique": "magnitude", "sparsity": 0.6}
# three steps and two
CHAINS = {"llama": (NEURONS, PRUNED, ANY["rounding"]), "bert": (PRUNED, ANY["nf4"])}
each_chain = pytest.mark.parametrize("architecture", CHAINS)
MEASURES = {
    "llama": {"perplexity", "loss"},
    "bert": {"accuracy", "precision", "recall", "f1", "loss"},
}


@pytest.fixture(scope="module")
def chain_runs(folders, tmp_path_factory):
    """The chain of an architecture, and the runs of its beginnings: outcomes and folders, by the
    number of steps.
    """
    kept = {}

    def of(architecture: str) -> dict:
        if architecture not in kept:
            where, steps = tmp_path_factory.mktemp(architecture), CHAINS[architecture]
            model, lengths = folders[architecture], range(1, len(steps) + 1)
            recipes = {
                length: recipe_for(architecture, model, where / "data", *steps[:length])
                for length in lengths
            }
            kept[architecture] = {
                length: (run(recipe, save=where / str(length)), where / str(length), recipe)
                for length, recipe in recipes.items()
            }
        return kept[architecture]

    return of


def at(stages: pd.DataFrame, step: int) -> dict[tuple[str, str], float]:
    """Values of one step by split and measure."""
    return stages[stages.step == step].set_index(["split", "measure"]).value.to_dict()


@each_chain
def test_a_step_in_the_midst_is_measured_as_if_the_run_ended_there(architecture, chain_runs):
    runs = chain_runs(architecture)
    whole = runs[len(runs)][0].tables.stages
    for length, (outcome, folder, recipe) in runs.items():
        ends = outcome.tables.stages
        assert at(whole, length) == at(ends, length) and at(whole, 0) == at(ends, 0)
        assert at(whole, length)["", "size_bytes"] == sum(
            file.stat().st_size for file in folder.glob("*.safetensors")
        )
        assert set(whole[whole.step == length].technique) == {recipe.steps[-1].label()}


@each_chain
def test_the_first_and_last_stage_are_the_runs_own_numbers(architecture, chain_runs):
    outcome, _, recipe = chain_runs(architecture)[len(CHAINS[architecture])]
    said, stages = outcome.summary, outcome.tables.stages
    for step, scores in ((0, said.baseline), (len(recipe.steps), said.result)):
        values = at(stages, step)
        assert {
            name: values["", name] for name in ("size_bytes", "parameters", "bits_per_weight")
        } == {
            "size_bytes": scores.size_bytes,
            "parameters": scores.parameters,
            "bits_per_weight": scores.bits_per_weight,
        }
        assert {name for split, name in values if split == "test"} == MEASURES[architecture] | (
            {"agreement"} if step else set()
        )
        assert (
            values["test", "loss"] == scores.loss and values.get(("test", "f1")) == scores.macro_f1
        )
        assert values.get(("test", "agreement")) == scores.agreement
    assert not stages.duplicated(["step", "split", "measure"]).any() and set(stages.step) == set(
        range(len(recipe.steps) + 1)
    )


@each_chain
def test_every_step_leaves_a_smaller_model(architecture, chain_runs):
    sizes = (
        chain_runs(architecture)[len(CHAINS[architecture])][0]
        .tables.stages.query("measure == 'size_bytes'")
        .value
    )
    assert sizes.is_monotonic_decreasing and sizes.is_unique


def test_a_run_of_one_step_measures_nothing_more(folders, tmp_path):
    told = []
    run(
        recipe_for("llama", folders["llama"], tmp_path / "data", PRUNED),
        report=told.append,
    )
    measuring = {"measuring-original", "measuring-step", "measuring-variant", "measuring-result"}
    assert {event.stage for event in told} & measuring == {"measuring-original", "measuring-result"}
    assert sum(event.stage == "measuring-result" and not event.done for event in told) == 1


def test_a_run_without_steps_has_the_original_alone(folders, tmp_path):
    outcome = run(recipe_for("bert", folders["bert"], tmp_path / "data"))
    assert set(outcome.tables.stages.step) == {0} and outcome.summary.result.agreement == 1.0


def test_a_run_stopped_between_two_steps_resumes_with_the_same_result(
    folders, tmp_path, monkeypatch
):
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path / "home"))
    recipe = recipe_for(
        "llama", folders["llama"], tmp_path / "data", {"technique": "sparsegpt"}, ANY["rounding"]
    )
    whole, told = run(recipe), []
    with pytest.raises(Cancelled, match="Finished layers are kept"):
        run(
            recipe,
            report=lambda event: told.append((event.stage, event.step)),
            cancelled=lambda: ("measuring-step", 1) in told,
        )
    again = run(recipe)
    assert "blocks were finished" in " ".join(again.summary.notes)
    pd.testing.assert_frame_equal(again.tables.stages, whole.tables.stages)


def test_a_training_that_is_ended_early_is_measured_and_the_next_step_still_follows(
    folders, tmp_path
):
    recipe, told = (
        recipe_for(
            "bert",
            folders["bert"],
            tmp_path / "data",
            {"technique": "fine-tune", "steps": 2000, "batch": 4},
            ANY["rounding"],
        ),
        [],
    )
    outcome = run(
        recipe,
        report=lambda event: told.append((event.stage, event.step)),
        cancelled=lambda: ("training", 1) in told,
    )
    assert outcome.summary.ended_early and set(outcome.tables.stages.step) == {0, 1, 2}
    assert told.index(("measuring-step", 1)) < told.index(("compressing", 2))


# --- a further split ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def further(folders, tmp_path_factory):
    """A recipe that is measured on a second file besides."""
    where = tmp_path_factory.mktemp("further")
    recipe = recipe_for("bert", folders["bert"], where, PRUNED, ANY["nf4"])
    shutil.copy(where / "texts.json", where / "validation.json")
    return recipe.model_copy(
        update={
            "task": recipe.task.model_copy(
                update={"also": str(where / "validation.json"), "samples": 9}
            )
        }
    )


def test_every_stage_is_measured_on_the_further_file_too(further):
    stages = run(further).tables.stages
    for step in range(3):
        values = at(stages, step)
        own, other = (
            {name: value for (split, name), value in values.items() if split == which}
            for which in ("test", "validation")
        )
        # one is a copy of the other
        assert own == other and {"accuracy", "precision", "recall", "f1"} <= own.keys()
    alone = run(
        further.model_copy(
            update={"task": further.task.model_copy(update={"data": further.task.also, "also": ""})}
        )
    ).tables.stages
    assert at(alone, 2)["test", "loss"] == at(stages, 2)["validation", "loss"]


def test_the_original_is_measured_once_in_every_split(further):
    run(further)
    told = []
    run(
        further.model_copy(update={"steps": further.steps[:1]}),
        report=lambda event: told.append((event.stage, event.step)),
    )
    assert ("measuring-original", 0) not in told and ("measuring-result", 0) in told


def test_a_split_of_the_bundled_data_has_its_own_examples(folders, tmp_path):
    recipe = recipe_for("resnet", folders["resnet"], tmp_path / "data", ANY["rounding"])
    both = run(
        recipe.model_copy(update={"task": recipe.task.model_copy(update={"also": "train"})})
    ).tables.stages
    alone = run(
        recipe.model_copy(update={"task": recipe.task.model_copy(update={"split": "train"})})
    ).tables.stages
    assert (
        at(both, 1)["train", "loss"] == at(alone, 1)["train", "loss"] != at(both, 1)["test", "loss"]
    )


def test_a_missing_split_is_reported_before_compression(folders, tmp_path):
    recipe, told = recipe_for("resnet", folders["resnet"], tmp_path / "data", ANY["rounding"]), []
    with pytest.raises(PlainError, match=r"no split .*'nowhere'.*\.$"):
        run(
            recipe.model_copy(update={"task": recipe.task.model_copy(update={"also": "nowhere"})}),
            report=lambda event: told.append((event.stage, event.step)),
        )
    assert ("compressing", 0) not in told


def test_the_split_that_is_measured_already_is_no_further_one():
    with pytest.raises(PlainError, match="which is evaluated already"):
        Recipe.from_dict({"task": {"kind": "text-classification", "also": "test"}})


def test_a_file_has_no_further_splits():
    with pytest.raises(
        PlainError, match=r"a file without splits; give another file, or remove it\.$"
    ):
        Recipe.from_dict(
            {
                "task": {
                    "kind": "text-classification",
                    "data": "texts.csv",
                    "also": "other.csv, validation",
                }
            }
        )


def test_a_language_model_is_measured_on_every_file_that_is_named(folders, tmp_path):
    recipe = recipe_for("llama", folders["llama"], tmp_path / "data", ANY["rounding"])
    files = [str(tmp_path / f"{name}.txt") for name in ("validation", "train")]
    for length, file in enumerate(files, 1):
        (tmp_path / file).write_text((tmp_path / "data" / "text.txt").read_text()[: 800 * length])
    stages = run(
        recipe.model_copy(
            update={"task": recipe.task.model_copy(update={"also": ", ".join(files)})}
        )
    ).tables.stages
    assert list(dict.fromkeys(stages.split[stages.measure == "perplexity"])) == [
        "test",
        "validation",
        "train",
    ]
    alone = run(
        recipe.model_copy(update={"task": recipe.task.model_copy(update={"text": files[1]})})
    ).tables.stages
    assert all(
        at(alone, step)["test", "perplexity"] == at(stages, step)["train", "perplexity"]
        for step in (0, 1)
    )


def test_a_recipe_without_a_further_split_has_the_key_it_had_before(further):
    fields = further.model_dump(mode="json")
    without = fields | {
        "task": {name: value for name, value in fields["task"].items() if name != "also"}
    }
    assert (
        Recipe.from_dict(without).key()
        == Recipe.from_dict(fields | {"task": fields["task"] | {"also": ""}}).key()
        != further.key()
    )


def test_a_further_file_that_changed_changes_the_key(further, tmp_path):
    file = tmp_path / "more.json"
    file.write_text("[]")
    recipe = further.model_copy(
        update={"task": further.task.model_copy(update={"also": str(file)})}
    )
    before = recipe.key()
    file.write_text("[ ]")
    assert recipe.key() != before


# --- forecasts ------------------------------------------------------------------------------------


def test_the_forecast_counts_measurements_between_steps_and_on_other_splits(further, monkeypatch):
    """One evaluation takes a second here, and everything else nothing."""
    monkeypatch.setattr("engine.forecast.duration.evaluation_seconds", lambda job, layers: 1.0)
    for other in ("loading_seconds", "compression_seconds", "finishing_seconds", "data_seconds"):
        monkeypatch.setattr(f"engine.forecast.duration.{other}", lambda *_: 0.0)
    monkeypatch.setattr("engine.forecast.duration.TOKENIZING", 0.0)
    monkeypatch.setattr("engine.forecast.is_baseline_cached", lambda *_: True)
    monkeypatch.setattr("engine.forecast.peak_bytes", lambda job: 1.0)
    alone = further.model_copy(update={"task": further.task.model_copy(update={"also": ""})})
    one = alone.model_copy(update={"steps": alone.steps[:1]})
    assert [forecast(recipe).seconds for recipe in (one, alone, further)] == [1.0, 2.0, 4.0]
    monkeypatch.setattr("engine.forecast.is_baseline_cached", lambda *_: False)
    assert [forecast(recipe).seconds for recipe in (one, alone, further)] == [2.0, 3.0, 6.0]
