"""The directions of one layer, and the ranks that a budget would buy in all of them: asked of a worker while a slider moves."""

from typing import Any

import streamlit as st

from engine.catalog import TECHNIQUES
from engine.catalog.lowrank import SVD, Whitened
from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.answers import ModelView, PlannedRanks
from pages.panels import CUMULATIVE_ENERGY, RANK_PLANNER, SINGULAR_VALUES
from pages.panels.numbers import megabytes, percent
from pages.parts.plainly import kept_answer, said
from pages.parts.show import show
from pages.parts.state import session
from pages.parts.what_if import looked_at

SCOPES = {"layer": "Each layer that share", "global": "All layers together"}


def directions(view: ModelView, step: dict[str, Any], recipe: Recipe | None, key: str) -> None:
    how = TECHNIQUES[step["technique"]]
    if not issubclass(how, Whitened):
        st.caption("Convolutions in a chain have no single list of directions: SVD and the low-rank correction show one.")
        return
    st.markdown("### Directions of this layer")
    one_layer(view, step, recipe, key)
    if how is SVD:
        st.markdown("### Ranks of all layers")
        planner(view.reference, step, everything_asked(recipe), f"{key}-planner")


def everything_asked(recipe: Recipe | None) -> dict[str, Any]:
    """Data as for one layer, and which layers steps may touch."""
    return recipe.model_dump(mode="json", include={"task", "calibration", "layers"}) if recipe else {}


def one_layer(view: ModelView, step: dict[str, Any], recipe: Recipe | None, key: str) -> None:
    try:
        singular = kept_answer("lessons.directions:singular", view.revision, **looked_at(view, step, recipe, key))
    except PlainError as error:
        said(str(error))
        return
    left, right = st.columns(2, gap="large")
    with left:
        show(SINGULAR_VALUES, singular, f"{key}-singular")
    with right:
        show(CUMULATIVE_ENERGY, singular, f"{key}-energy")


@st.fragment
def planner(model: str, step: dict[str, Any], measured: dict[str, Any], key: str) -> None:
    """The first answer waits for every layer's singular values; they are kept for the next."""
    budget, scope = st.columns([3, 2], gap="medium", vertical_alignment="bottom")
    percent_kept = budget.slider("Budget: parameters kept (%)", 5, 100, round(100 * step["kept"]), key=f"{key}-budget")
    shared = scope.segmented_control("Shared out", list(SCOPES), format_func=SCOPES.get, default="global", key=f"{key}-scope") or "global"
    asked = step | {"by": "kept", "kept": percent_kept / 100, "scope": shared}
    try:
        with st.spinner("Finding the singular values of all layers…", show_time=True):
            answer = session().ask("rank_planner:planned", timeout=600, model=model, step=asked, measured=measured)
    except PlainError as error:
        said(str(error))
        return
    numbers(answer)
    show(RANK_PLANNER, answer.ranks, f"{key}-ranks")


def numbers(answer: PlannedRanks) -> None:
    ranks = answer.ranks
    before, after = ranks.original_bytes.sum(), ranks.size_bytes.sum()
    kept = answer.kept_parameters / max(1, answer.parameters)
    first, second, third = st.columns(3)
    first.metric("Parameters kept", percent(kept), help=f"{percent(max(0.0, 1 - kept))} are removed, of the layers below.")
    second.metric("Weights of these layers", megabytes(after), f"from {megabytes(before)}", delta_color="off", delta_arrow="off")
    third.metric("Predicted error, mean", percent(ranks.predicted_error.mean()), help="Of the layers below, each counted once.")
