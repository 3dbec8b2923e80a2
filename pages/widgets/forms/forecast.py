"""Forecast of a run's size, time and memory."""

import streamlit as st

from engine.errors import PlainError
from engine.queries import ForecastQuery, PastRun
from engine.recipe import Recipe
from engine.results.analysis.runs import latest_similar_run
from engine.results.schema.record import RunRecord
from engine.runtime import settings
from engine.runtime.machine_load import machine_is_busy
from pages.formatting.numbers import duration, megabytes
from pages.widgets.queries import literal_markdown, show_error
from pages.widgets.state import ask, session


def forecast_line(recipe: Recipe) -> bool:
    """Draw the forecast, or the reason why there is none; return True if the run is possible."""
    try:
        past = latest_similar_run(session().store.similar_runs(recipe), recipe)
        ahead = ask(ForecastQuery(recipe, past_run(past) if past else None), timeout=120)
    except PlainError as error:
        show_error(str(error))
        return False
    bound = "at least " if ahead.at_least else "at most " if ahead.at_most else ""
    size = f"{bound}{megabytes(ahead.size_bytes)} ({ahead.compression:.2f}x smaller)"
    compressed = (  # a smaller student has no compressed weights
        f" ({ahead.bits_per_weight:.2f} per compressed weight in {ahead.layers} layers)"
        if ahead.bits_per_weight
        else ""
    )
    st.markdown(
        f"**Forecast**: {size}, {ahead.bits_per_parameter:.2f} bits per parameter{compressed}, "
        f"about {duration(max(1.0, ahead.seconds))} and {megabytes(ahead.peak_rss_bytes)} of memory"
    )
    if machine_is_busy() and not settings.scheduler():
        st.caption("The machine is busy, so the run may take longer.")
    for note in ahead.notes:
        st.caption(literal_markdown(note))
    return True


def past_run(run: RunRecord) -> PastRun:
    """Return what a finished run took, as input for the forecast."""
    return PastRun(run.recipe, run.summary.seconds, run.summary.peak_rss_bytes)
