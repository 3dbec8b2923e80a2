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
    GroupRow,
    OutlierRow,
    ReachRow,
    RemovedRow,
    ReplayRow,
    ScaledRow,
    TileRow,
)
from engine.results.schema.query_results import ModelView
from engine.results.schema.tables import StructureRow
from engine.techniques.pruning.gradual.config import Gradual
from engine.techniques.pruning.gradual.preview import cuts_ahead, rounds_ahead
from engine.techniques.pruning.lottery_ticket.config import LotteryTicket
from pages.panels import (
    CUTS_AHEAD,
    ERROR_BY_BITS,
    GPTQ_REPLAY,
    INPUT_REACH,
    ONE_GROUP,
    OUTLIER_COLUMNS,
    RECONSTRUCTION,
    REMOVED_WEIGHTS,
    ROUNDS_AHEAD,
    SCALED_COLUMN,
    STRUCTURE_SCORES,
    WAYS_TO_CHOOSE,
    Panel,
)
from pages.widgets.chart_card import show
from pages.widgets.layers.what_if import chosen_layer, shown_recipe
from pages.widgets.queries import NOT_AVAILABLE, cached_ask, escaped

PICTURES: dict[type, Panel] = {
    GroupRow: ONE_GROUP,
    ReplayRow: GPTQ_REPLAY,
    ScaledRow: SCALED_COLUMN,
    ReachRow: INPUT_REACH,
    OutlierRow: OUTLIER_COLUMNS,
    BitsRow: ERROR_BY_BITS,
    CriterionRow: WAYS_TO_CHOOSE,
    RemovedRow: REMOVED_WEIGHTS,
    StructureRow: STRUCTURE_SCORES,
    TileRow: RECONSTRUCTION,
}


def how_it_works(how: type[Technique]) -> None:
    st.markdown(f"### How it works: {escaped(how.title)}")
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown(how.idea)
        st.latex(how.formula)
    with right:
        st.markdown("**When it fails**")
        st.markdown(how.fails)
        st.markdown(f"**Read more**: {how.paper}")


def what_lies_ahead(step: dict[str, Any], key: str) -> None:
    """Draw the planned schedule of iterative techniques; nothing if the options are not allowed."""
    try:
        how = TECHNIQUES[step["technique"]](**step)
    except ValidationError:
        return
    match how:
        case Gradual():
            show(CUTS_AHEAD, cuts_ahead(how), f"{key}-ahead")
        case LotteryTicket():
            show(ROUNDS_AHEAD, rounds_ahead(how), f"{key}-ahead")


def on_real_weights(view: ModelView, step: dict[str, Any], recipe: Recipe | None, key: str) -> None:
    """Draw the technique at work on part of the chosen layer."""
    layer = chosen_layer(key)
    try:
        query = ExplanationQuery(shown_recipe(view.reference, [step], recipe), layer)
        lesson = cached_ask(query, view.revision)
    except PlainError:
        st.caption(NOT_AVAILABLE)
        return
    options = {} if lesson.levels.empty else {"levels": lesson.levels}
    show(PICTURES[lesson.row], lesson.table, f"{key}-lesson", **options)
    st.caption(
        f"Real weights of {escaped(layer)}: {escaped(lesson.part)}. Change an "
        "option or the layer to compare."
    )
