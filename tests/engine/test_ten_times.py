"""The ten-times example: both recipes as they are shipped, the one for the Hub on models and files
of a moment.
"""

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from engine.forecast import Cost
from engine.interactive import run_forecast
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.recipe.model_names import ASSETS
from engine.results.analysis.per_step_scores import step_scores
from engine.results.store.store import Store
from tests.answers import forecast
from tests.hub import serving
from tests.tiny import SENTENCES, tiny

CPU = torch.device("cpu")
NAMES = {"id2label": {0: "safe", 1: "phishing"}, "label2id": {"safe": 0, "phishing": 1}}
COUNTS = {"train": 40, "validation": 12, "test": 14}


def bundled_recipe(name: str) -> dict:
    return yaml.safe_load((ASSETS / "recipes" / f"{name}.yaml").read_text())


def files_in(folder: Path) -> dict[str, str]:
    """CSV files of texts and labels, as the user would bring them."""
    for split, count in COUNTS.items():
        texts = [f"{split} {number} {SENTENCES[number % 3]}" for number in range(count)]
        pd.DataFrame({"text": texts, "labels": [number % 2 for number in range(count)]}).to_csv(
            folder / f"{split}.csv", index=False
        )
    return {split: str(folder / f"{split}.csv") for split in COUNTS}


@pytest.fixture(scope="module")
def ten_times_run(tmp_path_factory):
    """The Hub's recipe with a teacher and a student from a Hub on this machine, and local files in
    the place of its data.
    """
    folder = tmp_path_factory.mktemp("ten-times")
    made = {
        "shawhin/bert-phishing-classifier_teacher": tiny("bert", folder / "teacher", **NAMES),
        "tiny/encoder": tiny("encoder", folder / "student"),
    }
    recipe, data = bundled_recipe("ten-times-hub"), files_in(folder)
    recipe["task"] |= {"data": data["test"], "also": data["validation"], "length": 64}
    recipe["training"] |= {"train": data["train"], "validation": data["validation"]}
    recipe["steps"][0] |= {"student": "tiny/encoder", "student_blocks": 2, "batch": 8}
    with serving(made) as hub, pytest.MonkeyPatch.context() as patch:
        hub.point_here(patch, folder / "home")
        outcome = run(Recipe.from_dict(recipe | {"device": "cpu"}), save=folder / "saved")
    return outcome, folder / "saved"


def test_the_hubs_recipe_goes_with_local_files_and_counts_its_epochs(ten_times_run):
    outcome, _ = ten_times_run
    losses = outcome.tables.curves.query("name == 'loss'")
    assert len(losses) == 5 * COUNTS["train"] / 8 and outcome.summary.protocol.data == "test.csv"


def test_every_station_is_measured_on_both_splits_and_smaller_than_the_one_before(ten_times_run):
    table = step_scores(ten_times_run[0].tables.stages)
    assert (
        table.step.tolist() == [0, 1, 2] * 2
        and table.split.tolist() == ["test"] * 3 + ["validation"] * 3
    )
    measured = table.drop(columns=["technique", "perplexity"])
    # with itself
    assert (
        measured[measured.isna().any(axis=1)].step.tolist() == [0, 0]
        and measured.drop(columns="agreement").notna().all().all()
    )
    parameters, sizes = (table[name][:3].tolist() for name in ("parameters", "size_bytes"))
    assert parameters[0] != parameters[1] == parameters[2] and sizes[0] > sizes[1] > sizes[2]
    assert table.compression[:3].tolist() == pytest.approx([sizes[0] / size for size in sizes])


def test_the_last_stations_bytes_are_those_of_the_files_and_the_rest_is_in_16_bits(ten_times_run):
    outcome, saved = ten_times_run
    last = step_scores(outcome.tables.stages).iloc[2]
    assert (
        last.size_bytes
        == outcome.summary.result.size_bytes
        == sum(path.stat().st_size for path in saved.glob("*.safetensors"))
    )
    student = load_model(resolve_model(str(saved)), CPU, torch.float32)
    stored = {
        layer.name: student.model.get_submodule(layer.name).stored for layer in student.layers
    }
    four_bits = {name for name, each in stored.items() if type(each).__name__ == "FourBit"}
    assert four_bits == {
        layer.name
        for layer in student.layers
        if layer.kind == "linear" and layer.name != "classifier"
    }
    assert all(stored[name].weight.dtype == torch.float16 for name in stored.keys() - four_bits)
    assert {value.dtype for value in student.plain.values() if value.is_floating_point()} == {
        torch.float16
    }


def test_the_last_station_loads_again_with_the_accuracy_that_was_reported(ten_times_run, tmp_path):
    outcome, saved = ten_times_run
    task = outcome.summary.protocol
    recipe = {
        "model": str(saved),
        "task": bundled_recipe("ten-times-hub")["task"]
        | {"data": files_in(tmp_path)["test"], "also": "", "length": 64},
    }
    again = run(Recipe.from_dict(recipe | {"device": "cpu"})).summary
    assert (
        again.protocol.samples == task.samples
        and again.baseline.loss == outcome.summary.result.loss
    )


def test_the_bundled_example_is_at_most_a_seventh_of_its_teacher(monkeypatch):
    monkeypatch.setattr(run_forecast, "cost_of", lambda job, past: Cost(0.0, 0.0))
    asked = Recipe.from_dict(bundled_recipe("ten-times"))
    assert forecast(asked).compression >= 7
    assert (asked.task.split, asked.task.also) == (
        "test",
        "validation",
    ) and not asked.training.train


def test_the_stored_example_belongs_to_its_recipe_and_keeps_its_promises():
    """Made by ``python -m engine.bundled.example ten-times``."""
    stored = Store(ASSETS / "examples", indexed=False)
    assert stored.record("ten-times").recipe == Recipe.from_dict(bundled_recipe("ten-times"))
    for _, rows in step_scores(stored.tables("ten-times").stages).groupby("split"):
        teacher, student, four_bits = rows.accuracy
        assert (
            teacher - student <= 0.02
            and teacher - four_bits <= 0.02
            and rows["compression"].iloc[-1] >= 7
        )
