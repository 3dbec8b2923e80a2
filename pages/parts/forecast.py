"""What a run would give and cost, before it is run."""

import streamlit as st

from engine.errors import PlainError
from engine.recipe import Recipe
from pages.panels.numbers import megabytes, seconds
from pages.parts.plainly import said
from pages.parts.state import session


def forecast_line(recipe: Recipe) -> None:
    try:
        ahead = session().ask("answers:forecast", recipe=recipe.model_dump(mode="json"))
    except PlainError as error:
        said(str(error))
        return
    known = seconds_before(recipe)
    bound = "at least " if ahead.at_least else "at most " if ahead.at_most else ""
    size = f"{bound}{megabytes(ahead.size_bytes)} ({ahead.compression:.2f}x smaller)"
    st.markdown(
        f"**Forecast**: {size}, {ahead.bits_per_weight:.2f} bits per weight in {ahead.layers} layers, "
        f"about {seconds(max(1.0, known or ahead.seconds))}"
    )


def seconds_before(recipe: Recipe) -> float | None:
    """What the last run of this model and task took on this machine: a better guess than any formula."""
    try:
        records = session().records()
    except PlainError:
        return None
    alike = (run for run in records if run.summary and run.recipe.model == recipe.model and run.recipe.task == recipe.task and run.recipe.steps)
    return next((run.summary.seconds for run in alike), None)
