"""Singular values of one layer, and the ranks of all layers for a budget, computed by a worker
while a slider moves.
"""

from typing import Any

import streamlit as st

from engine.config.registry import TECHNIQUES
from engine.errors import PlainError
from engine.queries import RankPlanQuery, SingularValuesQuery
from engine.recipe import Recipe
from engine.results.schema.query_results import ModelView, PlannedRanks
from pages.formatting.numbers import megabytes, percent
from pages.panels import CUMULATIVE_ENERGY, RANK_PLANNER, SINGULAR_VALUES
from pages.widgets.chart_card import show_panel
from pages.widgets.layers.what_if import chosen_layer, shown_recipe
from pages.widgets.queries import cached_ask, show_error
from pages.widgets.state import ask

PLANNED = frozenset({"task", "calibration", "layers"})
SCOPES = {"layer": "Same share per layer", "global": "Global (all layers)"}


def rank_planner(view: ModelView, step: dict[str, Any], recipe: Recipe | None, key: str) -> None:
    st.markdown("### Singular values of this layer")
    singular_value_panels(view, step, recipe, key)
    if "rank-planner" in TECHNIQUES[step["technique"]].live_views:
        st.markdown("### Ranks of all layers")
        budget_planner(view.reference, step, recipe, f"{key}-planner")


def singular_value_panels(
    view: ModelView, step: dict[str, Any], recipe: Recipe | None, key: str
) -> None:
    try:
        shown = shown_recipe(view.reference, [step], recipe)
        singular = cached_ask(SingularValuesQuery(shown, chosen_layer(key)), view.revision)
    except PlainError as error:
        show_error(str(error))
        return
    left, right = st.columns(2, gap="large")
    with left:
        show_panel(SINGULAR_VALUES, singular, f"{key}-singular")
    with right:
        show_panel(CUMULATIVE_ENERGY, singular, f"{key}-energy")


@st.fragment
def budget_planner(model: str, step: dict[str, Any], recipe: Recipe | None, key: str) -> None:
    """Draw the rank planner. The singular values of all layers are computed once and cached."""
    budget, scope = st.columns([3, 2], gap="medium", vertical_alignment="bottom")
    percent_kept = budget.slider(
        "Budget: parameters kept (%)", 5, 100, round(100 * step["kept"]), key=f"{key}-budget"
    )
    shared = (
        scope.segmented_control(
            "Scope", list(SCOPES), format_func=SCOPES.get, default="global", key=f"{key}-scope"
        )
        or "global"
    )
    planned = step | {"by": "kept", "kept": percent_kept / 100, "scope": shared}
    try:
        with st.spinner("Computing the singular values of all layers…", show_time=True):
            shown = shown_recipe(model, [planned], recipe, PLANNED)
            answer = ask(RankPlanQuery(shown), timeout=600)
    except PlainError as error:
        show_error(str(error))
        return
    size_metrics(answer)
    show_panel(RANK_PLANNER, answer.ranks, f"{key}-ranks")


def size_metrics(answer: PlannedRanks) -> None:
    ranks = answer.ranks
    before, after = ranks.original_bytes.sum(), ranks.size_bytes.sum()
    kept = answer.kept_parameters / max(1, answer.parameters)
    first, second, third = st.columns(3)
    first.metric(
        "Parameters kept",
        percent(kept),
        help=f"{percent(max(0.0, 1 - kept))} of the parameters of these layers are removed.",
    )
    second.metric(
        "Size of these layers",
        megabytes(after),
        f"from {megabytes(before)}",
        delta_color="off",
        delta_arrow="off",
    )
    third.metric(
        "Predicted error, mean",
        percent(ranks.predicted_error.mean()),
        help="Mean over the layers below; tied layers count once.",
    )
