"""Ranges that the observers choose for one layer's inputs, for a setting or a finished run."""

from typing import Any

import streamlit as st

from engine.config.registry import TECHNIQUES
from engine.errors import PlainError
from engine.queries import RangesQuery
from engine.recipe import Recipe
from pages.panels import OBSERVERS
from pages.widgets.chart_card import show_panel
from pages.widgets.queries import show_error
from pages.widgets.state import ask


def has_static_ranges(step: dict[str, Any]) -> bool:
    """Return True if the step quantizes activations with static ranges."""
    views = TECHNIQUES[step["technique"]].live_views
    return "input-ranges" in views and step.get("mode", "static") == "static"


def observer_ranges(
    recipe: Recipe, layer: str, key: str, scales: tuple[float, ...] | None = None
) -> None:
    """Draw the ranges of all five observers; ``scales`` are those by which a run divided the
    inputs.
    """
    try:
        answer = ask(RangesQuery(recipe, layer, scales), timeout=120)
    except PlainError as error:
        show_error(str(error))
        return
    show_panel(OBSERVERS, answer.observers, f"{key}-ranges", histogram=answer.histogram)
    st.caption(
        f"Computed from {answer.examples} calibration examples with the uncompressed model; "
        "a run uses all of its examples."
    )
