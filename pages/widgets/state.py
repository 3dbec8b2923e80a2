"""State of a browser session. Widgets only show it, because their own state is lost when their page
is left.
"""

from typing import Any

import streamlit as st
from pydantic import ValidationError
from streamlit.runtime.scriptrunner import get_script_run_ctx

from engine.config.registry import TECHNIQUES
from engine.queries import Answer, Query
from engine.recipe import Recipe
from engine.recipe.model_names import BUNDLED_MODELS
from engine.recipe.tasks import (
    Calibration,
    EvaluationTask,
    ImageClassification,
    LanguageModeling,
    MaskedLanguageModeling,
    TextClassification,
)
from engine.session import Session

DEFAULT_MODEL = "bundled:docs-lm"
TASKS: dict[str, type[EvaluationTask]] = {
    "language-modeling": LanguageModeling,
    "masked-language-modeling": MaskedLanguageModeling,
    "text-classification": TextClassification,
    "image-classification": ImageClassification,
}
CALIBRATION = Calibration(samples=16)


@st.cache_resource(show_spinner="Starting the background session…")
def session() -> Session:
    """Return the session shared by all visitors of this server."""
    return Session()


def ask(query: Query[Answer], timeout: float = 60) -> Answer:
    """Return a worker's answer for this page's visitor; their older questions are dropped.

    Raises PlainError.
    """
    context = get_script_run_ctx(suppress_warning=True)
    visitor = context.session_id if context else None
    return session().ask(query, timeout=timeout, visitor=visitor)


def chosen_model() -> str:
    return st.session_state.setdefault("model", st.query_params.get("model", DEFAULT_MODEL))


def technique_options(technique: str) -> dict[str, Any]:
    """Options chosen for a technique."""
    return st.session_state.setdefault("options", {}).setdefault(technique, {})


def opened_recipes() -> int:
    """Number of recipes opened so far; it is part of widget keys, so that widgets show the opened
    recipe.
    """
    return st.session_state.setdefault("opened-recipes", 0)


def measurement_choices(reference: str) -> dict[str, Any]:
    """Measurement options chosen for a model: parts of a recipe."""
    return st.session_state.setdefault("choices", {}).setdefault(reference, {})


def recipe_for(
    steps: list[dict[str, Any]],
    reference: str,
    kind: str,
    longest: int | None = None,
    other_fields: dict[str, Any] | None = None,
) -> Recipe:
    """Recipe that the page would run: this model, its task and these steps.

    Raises PlainError if a choice is not allowed. ``longest`` is the model's maximum number of
    tokens; ``other_fields`` contains the other fields of an opened recipe.
    """
    task, chosen = task_fields(reference, kind, longest), measurement_choices(reference)
    parts = (
        {"model": reference}
        | chosen
        | {
            "task": task,
            "calibration": default_calibration(task) | chosen.get("calibration", {}),
            "steps": steps,
        }
    )
    learnt = (
        {name: value for name, value in training_choices(reference).items() if value}
        if any(map(is_training_step, steps))
        else {}
    )
    return Recipe.from_dict(parts | (other_fields or {}) | ({"training": learnt} if learnt else {}))


def is_training_step(step: dict[str, Any]) -> bool:
    """Return True if the step trains; some techniques decide by their options."""
    try:
        return TECHNIQUES[step["technique"]](**step).trains
    except ValidationError:
        return False


def training_choices(reference: str) -> dict[str, Any]:
    """Training data chosen for a model, if other than its task's."""
    return st.session_state.setdefault("training", {}).setdefault(reference, {})


def task_fields(reference: str, kind: str, longest: int | None = None) -> dict[str, Any]:
    """Fields of the task as chosen, allowed or not; by default no longer than the model's maximum
    length.
    """
    bundled = BUNDLED_MODELS.get(reference.removeprefix("bundled:"))
    task = (bundled.task if bundled else TASKS[kind]()).model_dump()
    fitting = {
        name: min(task[name], longest) for name in ("context", "length") if longest and name in task
    }
    chosen = measurement_choices(reference).get("task", {})
    # a recipe may have a task of another kind
    return task | fitting | (chosen if chosen.get("kind", task["kind"]) == task["kind"] else {})


def default_calibration(task: dict[str, Any]) -> dict[str, Any]:
    """Calibration windows no longer than those of the task."""
    context = task.get("context", CALIBRATION.context)
    return CALIBRATION.model_copy(
        update={"context": min(CALIBRATION.context, max(2, context))}
    ).model_dump()
