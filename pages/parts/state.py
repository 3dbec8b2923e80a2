"""What a browser session remembers. Widgets are views of it: their own state goes when their page is left."""

import streamlit as st

from engine.catalog.models import BUNDLED
from engine.catalog.tasks import Calibration, ImageClassification, LanguageModeling, TextClassification
from engine.recipe import Layers, Recipe
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


def recipe_for(step: dict | None, reference: str, kind: str) -> Recipe:
    """The recipe a page would run: this model, the task that fits it, one step."""
    return Recipe.of(
        {
            "model": reference,
            "task": task_for(reference, kind).model_dump(),
            "calibration": CALIBRATION.model_dump(),
            "layers": Layers().model_dump(),
            "steps": [step] if step else [],
        }
    )


def task_for(reference: str, kind: str) -> LanguageModeling | TextClassification | ImageClassification:
    """A bundled model's own task, or the bundled data for what the model does; a person's own data where given."""
    bundled = BUNDLED.get(reference.removeprefix("bundled:"))
    chosen = st.session_state.get("data", {}).get(reference)
    task = bundled.task if bundled else TASKS[kind]()
    return task.model_validate(task.model_dump() | chosen) if chosen else task
