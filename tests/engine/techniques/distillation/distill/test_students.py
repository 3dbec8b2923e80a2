"""Students load again as they were trained, and forecasts know their size."""

import json

import pytest
import torch

from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.pipeline.run import run
from engine.recipe import Recipe
from tests.answers import forecast
from tests.cases import for_each
from tests.distillation import CPU, KINDS, SHORT
from tests.recipes import recipe_for
from tests.tiny import ARCHITECTURES, tiny
from tests.training_examples import exercises

STUDENTS = {
    "half the blocks": {},
    "half the blocks and heads": {"heads": 0.5},
    "narrower": {"width": 0.5},
    "same": {"student": "same"},
    "same, at random": {"student": "same", "start": "random"},
    "half precision": {"values": "float16"},
}


CASES = [
    (a, s)
    for a in ARCHITECTURES
    for s in STUDENTS
    if (a, s) != ("resnet", "half the blocks and heads")
]


@pytest.mark.usefixtures("bytes_alone")
@for_each(("architecture", "student"), CASES)
def test_the_saved_student_has_the_forecast_bytes_and_its_scores(
    architecture, student, folders, tmp_path
):
    recipe = recipe_for(
        architecture,
        folders[architecture],
        tmp_path / "data",
        SHORT | {"steps": 2} | STUDENTS[student],
    )
    outcome = run(recipe, save=tmp_path / "student")
    again = load_model(resolve_model(str(tmp_path / "student")), CPU, torch.float32)
    assert forecast(recipe).size_bytes == outcome.summary.result.size_bytes
    assert outcome.summary.result.parameters == again.parameters
    measured = run(
        Recipe.from_dict(
            recipe.model_dump()
            | {"model": str(tmp_path / "student"), "steps": [], "calibration": None}
        )
    )
    assert measured.summary.baseline.loss == outcome.summary.result.loss


@pytest.mark.parametrize("architecture", KINDS)
def test_the_student_loads_again_with_equal_logits(architecture, folders, tmp_path, monkeypatch):
    from engine.pipeline import replacement_writer as succession

    kept = {}
    write = succession.ReplacementWriter.write
    monkeypatch.setattr(
        succession.ReplacementWriter,
        "write",
        lambda self, out: kept.update(heir=self.replacement) or write(self, out),
    )
    run(
        recipe_for(architecture, folders[architecture], tmp_path / "data", SHORT),
        save=tmp_path / "student",
    )
    again, inputs = (
        load_model(resolve_model(str(tmp_path / "student")), CPU, torch.float32),
        exercises(architecture).inputs,
    )
    with torch.no_grad():
        assert torch.equal(kept["heir"].model.eval()(**inputs).logits, again.model(**inputs).logits)


def test_another_model_may_be_the_student(folders, tmp_path, run_step):
    other = tiny("bert", tmp_path / "other", seed=5, num_hidden_layers=1, intermediate_size=64)
    outcome = run_step(student=str(other), save=tmp_path / "student")
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["intermediate_size"]) == (1, 64)
    assert outcome.summary.result.parameters < outcome.summary.baseline.parameters
