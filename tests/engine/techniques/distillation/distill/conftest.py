"""Runs of one short training."""

import pytest

from engine.pipeline.run import run
from tests.distillation import FINE, SHORT
from tests.recipes import recipe_for


@pytest.fixture
def run_step(folders, tmp_path):
    def run_recipe(
        architecture="bert",
        *more,
        save=None,
        cancelled=lambda: False,
        training=None,
        report=lambda *_: None,
        **step,
    ):
        first = (FINE if step.get("technique") == "fine-tune" else SHORT) | step
        fields = {"training": training} if training else {}
        recipe = recipe_for(
            architecture, folders[architecture], tmp_path / "data", first, *more, **fields
        )
        return run(recipe, save=save, cancelled=cancelled, report=report)

    return run_recipe
