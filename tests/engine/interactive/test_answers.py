"""Live questions: the answers are those a run would give."""

import os

import pytest
import torch

from engine.errors import PlainError
from engine.interactive.answers import answer
from engine.pipeline.run import run
from engine.queries import WorkerQuery
from tests.answers import forecast, model_view
from tests.questions import STEPS
from tests.recipes import recipe_for


def test_the_doctor_says_what_it_computes_with():
    facts = answer(WorkerQuery())
    assert facts.threads >= 1 and facts.cuda == torch.cuda.is_available()
    assert facts.pid == os.getpid()


def test_a_compressed_model_is_looked_at_and_has_no_forecast_of_more_steps(
    bfloat16_folders, tmp_path
):
    recipe = recipe_for("llama", bfloat16_folders["llama"], tmp_path / "data", STEPS[0])
    run(recipe, save=tmp_path / "small")
    assert (
        model_view(str(tmp_path / "small")).parameters
        == model_view(str(bfloat16_folders["llama"])).parameters
    )
    with pytest.raises(PlainError, match="is already compressed"):
        forecast(
            recipe.model_copy(update={"model": str(tmp_path / "small")}).model_dump(mode="json")
        )
