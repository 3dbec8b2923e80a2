"""What a browser session remembers. Widgets are views of it: their own state goes when their page is left."""

import streamlit as st
from pydantic import ValidationError

from engine.catalog import TECHNIQUES
from engine.catalog.models import BUNDLED
from engine.catalog.tasks import Calibration, ImageClassification, LanguageModeling, TextClassification
from engine.recipe import Recipe
from engine.session import Session

DEFAULT_MODEL = "bundled:docs-lm"
TASKS = {"language-modeling": LanguageModeling, "text-classification": TextClassification, "image-classification": ImageClassification}
CALIBRATION = Calibration(samples=16)


@st.cache_resource(show_spinner="Starting the background session…")
def session() -> Session:
    """One for everybody on this server."""
    return Session()


def model() -> str:
    return st.session_state.setdefault("model", st.query_params.get("model", DEFAULT_MODEL))


def options_of(technique: str) -> dict:
    """The options a person has chosen for a technique so far."""
    return st.session_state.setdefault("options", {}).setdefault(technique, {})


def opened_recipes() -> int:
    """How many files have been opened so far: widgets of what they say have another name after each, since their own state would outlast it."""
    return st.session_state.setdefault("opened-recipes", 0)


def choices_for(reference: str) -> dict:
    """How a person wants a model measured: parts of a recipe."""
    return st.session_state.setdefault("choices", {}).setdefault(reference, {})


def recipe_for(steps: list[dict], reference: str, kind: str, longest: int | None = None, beside: dict | None = None) -> Recipe:
    """The recipe a page would run: this model, the task that fits it, these steps. Raises PlainError for a choice that is not allowed.

    ``longest`` is how many tokens the model can see at once; ``beside``: what else a recipe that was opened says.
    """
    task, chosen = task_for(reference, kind, longest), choices_for(reference)
    parts = {"model": reference} | chosen | {"task": task, "calibration": calibration_beside(task) | chosen.get("calibration", {}), "steps": steps}
    learnt = {name: value for name, value in training_for(reference).items() if value} if any(map(trains, steps)) else {}
    return Recipe.of(parts | (beside or {}) | ({"training": learnt} if learnt else {}))


def trains(step: dict) -> bool:
    """Of some techniques the options decide."""
    try:
        return TECHNIQUES[step["technique"]](**step).trains
    except ValidationError:
        return False


def training_for(reference: str) -> dict:
    """What a person wants a model to learn from, where it is other data than its task's."""
    return st.session_state.setdefault("training", {}).setdefault(reference, {})


def task_for(reference: str, kind: str, longest: int | None = None) -> dict:
    """The fields of the task as chosen so far, allowed or not; windows and texts no longer than the model can see, unless chosen so."""
    bundled = BUNDLED.get(reference.removeprefix("bundled:"))
    task = (bundled.task if bundled else TASKS[kind]()).model_dump()
    fitting = {name: min(task[name], longest) for name in ("context", "length") if longest and name in task}
    chosen = choices_for(reference).get("task", {})
    return task | fitting | (chosen if chosen.get("kind", task["kind"]) == task["kind"] else {})  # a recipe may name a task of another kind


def calibration_beside(task: dict) -> dict:
    """Calibration windows no longer than those that quality is measured on."""
    context = task.get("context", CALIBRATION.context)
    return CALIBRATION.model_copy(update={"context": min(CALIBRATION.context, max(2, context))}).model_dump()
