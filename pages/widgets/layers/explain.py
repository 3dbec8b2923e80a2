"""Explanation of a technique: idea, formula, paper, limitations, and a figure for the chosen
layer.
"""

from typing import Any

import streamlit as st
from pydantic import ValidationError

from engine.config.registry import TECHNIQUES
from engine.config.technique import Technique
from engine.errors import PlainError
from engine.queries import ExplanationQuery
from engine.recipe import Recipe
from engine.results.schema.explanations import (
    BitsRow,
    CriterionRow,
    CutRow,
    GroupRow,
    OutlierRow,
    ReachRow,
    RemovedRow,
    ReplayRow,
    RoundRow,
    ScaledRow,
    TileRow,
)
from engine.results.schema.query_results import ModelView
from engine.results.schema.tables import StructureRow
from engine.techniques.previews import preview
from pages.panels import (
    CHANNEL_SELECTION,
    ERROR_BY_BITS,
    GPTQ_REPLAY,
    GRADUAL_PRUNING_PREVIEW,
    GROUP_ROUNDING,
    INPUT_RANGES,
    LOTTERY_PREVIEW,
    OUTLIER_COLUMNS,
    RECONSTRUCTION,
    REMOVED_WEIGHTS,
    SCALED_COLUMN,
    STRUCTURE_SCORES,
    Panel,
)
from pages.widgets.chart_card import show_panel
from pages.widgets.layers.what_if import chosen_layer, shown_recipe
from pages.widgets.queries import NOT_AVAILABLE, cached_ask, literal_markdown

PANEL_BY_ROW: dict[type, Panel] = {
    GroupRow: GROUP_ROUNDING,
    ReplayRow: GPTQ_REPLAY,
    ScaledRow: SCALED_COLUMN,
    ReachRow: INPUT_RANGES,
    OutlierRow: OUTLIER_COLUMNS,
    BitsRow: ERROR_BY_BITS,
    CutRow: GRADUAL_PRUNING_PREVIEW,
    RoundRow: LOTTERY_PREVIEW,
    CriterionRow: CHANNEL_SELECTION,
    RemovedRow: REMOVED_WEIGHTS,
    StructureRow: STRUCTURE_SCORES,
    TileRow: RECONSTRUCTION,
}


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
        show_panel(PANEL_BY_ROW[row], rows, f"{key}-ahead")


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
    show_panel(PANEL_BY_ROW[explanation.row], explanation.table, f"{key}-lesson", **options)
    st.caption(
        f"Real weights of {literal_markdown(layer)}: {literal_markdown(explanation.part)}. Change "
        "an option or the layer to compare."
    )
