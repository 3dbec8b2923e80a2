"""What a run would give and cost, before it is run."""

import streamlit as st

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.analysis import latest_alike
from engine.results.record import RunRecord
from pages.panels.numbers import megabytes, seconds
from pages.parts.plainly import said
from pages.parts.state import session


def forecast_line(recipe: Recipe) -> bool:
    """Says it, or why there is none; whether there is one."""
    try:
        past = latest_alike(session().records(), recipe)
        ahead = session().ask("answers:forecast", recipe=recipe.model_dump(mode="json"), past=costs_of(past) if past else None)
    except PlainError as error:
        said(str(error))
        return False
    bound = "at least " if ahead.at_least else "at most " if ahead.at_most else ""
    size = f"{bound}{megabytes(ahead.size_bytes)} ({ahead.compression:.2f}x smaller)"
    st.markdown(
        f"**Forecast**: {size}, {ahead.bits_per_weight:.2f} bits per weight in {ahead.layers} layers, "
        f"about {seconds(max(1.0, ahead.seconds))} and {megabytes(ahead.peak_rss_bytes)} of memory"
    )
    return True


def costs_of(run: RunRecord) -> dict:
    """What a run took, for the worker to learn from."""
    return {"recipe": run.recipe.model_dump(mode="json"), "seconds": run.summary.seconds, "peak_rss_bytes": run.summary.peak_rss_bytes}
