"""Agreement of the pruning methods on one layer, computed by a worker on request."""

from typing import Any

import streamlit as st

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.schema.query_results import ModelView
from pages.panels import MASK_OVERLAP
from pages.widgets.chart_card import show
from pages.widgets.layers.what_if import looked_at
from pages.widgets.queries import NOT_AVAILABLE, cached_ask, show_error


def overlap(
    view: ModelView, step: dict[str, Any], recipe: Recipe | None, key: str, refused: bool = False
) -> None:
    st.markdown("### Comparison with other methods")
    if not st.toggle("Compare the weights that each method keeps", key=f"{key}-overlap"):
        return
    try:
        answer = cached_ask(
            "explain.pruning:overlap", view.revision, **looked_at(view, step, recipe, key)
        )
    except PlainError as error:
        st.caption(NOT_AVAILABLE) if refused else show_error(str(error))
        return
    show(MASK_OVERLAP, answer, f"{key}-mask-overlap")
