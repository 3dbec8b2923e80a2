"""Recipes that are opened from files."""

import pytest
import streamlit as st

from engine.recipe import Recipe
from pages.widgets import state
from pages.widgets.recipes.recipe_file import (
    BUNDLED_RECIPES,
    UPLOAD_ERROR,
    apply_recipe,
    open_bundled,
    open_file,
    recipe_title,
)
from tests.cases import for_each


class Upload:
    """A file as Streamlit hands it over."""

    def __init__(self, text: str, name: str = "recipe.yaml"):
        self.text, self.name = text, name

    def getvalue(self) -> bytes:
        return self.text.encode()


@pytest.fixture
def choices(monkeypatch) -> dict:
    """State of a browser session."""
    kept: dict = {}
    monkeypatch.setattr(st, "session_state", kept)
    monkeypatch.setattr(st, "query_params", {})
    return kept


@for_each("name", BUNDLED_RECIPES)
def test_every_bundled_recipe_becomes_the_pages_choices(name, choices):
    choices["own"] = name
    before = state.opened_recipes()
    open_bundled("own")
    recipe = Recipe.from_yaml(BUNDLED_RECIPES[name].read_text())
    assert state.chosen_model() == recipe.model and state.opened_recipes() == before + 1
    assert [step.technique for step in choices["chain"]] == [
        step.technique for step in recipe.steps
    ]
    chosen = state.measurement_choices(recipe.model)
    assert (chosen["seed"], chosen["device"]) == (recipe.seed, recipe.device)


def test_an_opened_recipe_replaces_the_training_choices_of_the_one_before(choices):
    fields = {"model": "org/model", "steps": [{"technique": "fine-tune"}]}
    apply_recipe(Recipe.from_dict(fields | {"training": {"samples": 64}}))
    assert state.training_choices("org/model") == {"samples": 64}
    apply_recipe(Recipe.from_dict(fields))
    assert state.training_choices("org/model") == {}


def test_a_file_that_is_no_recipe_changes_nothing_and_a_good_one_removes_the_message(choices):
    choices["upload"] = Upload("steps: [{technique: nothing}]")
    open_file("upload")
    assert choices[UPLOAD_ERROR].startswith("Step 1") and "chain" not in choices
    choices["upload"] = Upload("steps: [{technique: gptq}]")
    open_file("upload")
    assert UPLOAD_ERROR not in choices and len(choices["chain"]) == 1


def test_titles_are_words():
    assert recipe_title("ten-times-hub") == "Ten times hub"
