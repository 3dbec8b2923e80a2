"""Explanation of a technique: idea, formula, paper, limitations, and a figure for the chosen
layer.
"""

import logging
from typing import Any

import pandas as pd
import streamlit as st
from pydantic import ValidationError

from engine.config.registry import TECHNIQUES
from engine.config.technique import Technique
from engine.errors import PlainError
from engine.queries import ExplanationQuery
from engine.recipe import Recipe
from engine.results.schema.declaration import panel_of
from engine.results.schema.query_results import ModelView
from engine.techniques.previews import preview
from pages.widgets.chart_card import panel_named, show_panel
from pages.widgets.layers.what_if import chosen_layer, shown_recipe
from pages.widgets.queries import NOT_AVAILABLE, cached_ask, literal_markdown


def how_it_works(config: type[Technique]) -> None:
    st.markdown(f"### How it works: {literal_markdown(config.title)}")
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown(config.explanation)
        st.latex(config.formula)
    with right:
        st.markdown("**When it fails**")
        st.markdown(config.limitations)
        st.markdown(f"**Read more**: {config.paper}")


def schedule_preview(step: dict[str, Any], key: str) -> None:
    """Draw the planned schedule of iterative techniques; nothing if the options are not allowed."""
    try:
        config = TECHNIQUES[step["technique"]](**step)
    except ValidationError:
        return
    if ahead := preview(config):
        row, rows = ahead
        explanation_panel(row, rows, f"{key}-ahead")


def layer_explanation(
    view: ModelView, step: dict[str, Any], recipe: Recipe | None, key: str
) -> None:
    """Draw the technique at work on part of the chosen layer."""
    layer = chosen_layer(key)
    try:
        query = ExplanationQuery(shown_recipe(view.reference, [step], recipe), layer)
        explanation = cached_ask(query, view.revision)
    except PlainError:
        st.caption(NOT_AVAILABLE)
        return
    options = {} if explanation.levels.empty else {"levels": explanation.levels}
    explanation_panel(explanation.row, explanation.table, f"{key}-lesson", **options)
    st.caption(
        f"Real weights of {literal_markdown(layer)}: {literal_markdown(explanation.part)}. Change "
        "an option or the layer to compare."
    )


def explanation_panel(row: type, table: pd.DataFrame, key: str, **options: pd.DataFrame) -> None:
    """Draw the panel that is declared for these rows; a caption if it cannot be used."""
    try:
        panel = panel_named(panel_of(row))
    except Exception as error:  # code of another package
        logging.getLogger(__name__).warning("No panel for %s: %s", row.__name__, error)
        st.caption("The figure of this explanation cannot be loaded. The log names the reason.")
        return
    show_panel(panel, table, key, **options)
