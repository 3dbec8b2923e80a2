"""Choices of a browser session, as the recipe that its page would run."""

import pytest
import streamlit as st

from engine.errors import PlainError
from pages.widgets import state
from tests.cases import for_each

STEPS = [{"technique": "round-to-nearest"}]


@pytest.fixture
def choices(monkeypatch) -> dict:
    """State of a browser session."""
    kept: dict = {}
    monkeypatch.setattr(st, "session_state", kept)
    monkeypatch.setattr(st, "query_params", {})
    return kept


def test_a_model_in_the_address_is_chosen_until_another_one_is(choices, monkeypatch):
    assert state.chosen_model() == state.DEFAULT_MODEL
    choices.clear()
    monkeypatch.setattr(st, "query_params", {"model": "org/model"})
    assert state.chosen_model() == "org/model"
    choices["model"] = "org/other"
    assert state.chosen_model() == "org/other"


@for_each("kind", state.TASKS)
def test_without_any_choice_every_kind_of_model_has_a_recipe(kind, choices):
    recipe = state.recipe_for(STEPS, "org/model", kind)
    assert recipe.task.kind == kind and recipe.calibration and recipe.training is None


@for_each("longest", [16, 100, 10_000])
def test_no_window_is_longer_than_the_models_maximum(longest, choices):
    recipe = state.recipe_for(STEPS, "org/model", "language-modeling", longest)
    default = state.recipe_for(STEPS, "org/model", "language-modeling")
    assert recipe.task.context == min(longest, default.task.context)
    assert recipe.calibration.context <= recipe.task.context


def test_choices_are_kept_for_each_model_and_a_task_of_another_kind_is_passed_over(choices):
    state.measurement_choices("org/model").update(
        seed=7, task={"kind": "language-modeling", "context": 48}
    )
    chosen = state.recipe_for(STEPS, "org/model", "language-modeling")
    assert (chosen.seed, chosen.task.context) == (7, 48)
    assert state.recipe_for(STEPS, "org/other", "language-modeling").seed == 0
    other = state.recipe_for(STEPS, "org/model", "text-classification")
    assert other.seed == 7 and other.task.kind == "text-classification"


def test_training_data_goes_into_recipes_that_train(choices):
    state.training_choices("org/model").update(samples=64, train="")
    trained = [{"technique": "fine-tune"}]
    recipe = state.recipe_for(trained, "org/model", "text-classification")
    assert recipe.training.samples == 64 and recipe.training.model_fields_set == {"samples"}
    assert state.recipe_for(STEPS, "org/model", "text-classification").training is None


def test_a_step_trains_if_its_technique_or_its_options_say_so():
    assert state.is_training_step({"technique": "qat"})
    assert not state.is_training_step({"technique": "gptq"})
    assert state.is_training_step({"technique": "tucker", "recovery": 5})
    assert not state.is_training_step({"technique": "tucker", "recovery": 0})
    assert not state.is_training_step({"technique": "gptq", "bits": 99}), "no such step"


def test_a_choice_that_is_not_allowed_is_one_sentence(choices):
    state.measurement_choices("org/model")["seed"] = -5
    with pytest.raises(PlainError, match="Seed"):
        state.recipe_for(STEPS, "org/model", "language-modeling")
