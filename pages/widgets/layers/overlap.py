"""Agreement of the pruning methods on one layer, computed by a worker on request."""

from typing import Any

import streamlit as st

from engine.errors import PlainError
from engine.queries import MaskOverlapQuery
from engine.recipe import Recipe
from engine.results.schema.query_results import ModelView
from pages.panels import MASK_OVERLAP
from pages.widgets.chart_card import show_panel
from pages.widgets.layers.what_if import chosen_layer, shown_recipe
from pages.widgets.queries import NOT_AVAILABLE, cached_ask, show_error


def method_overlap(
    view: ModelView,
    step: dict[str, Any],
    recipe: Recipe | None,
    key: str,
    error_shown: bool = False,
) -> None:
    st.markdown("### Comparison with other methods")
    if not st.toggle("Compare the weights that each method keeps", key=f"{key}-overlap"):
        return
    try:
        shown = shown_recipe(view.reference, [step], recipe)
        answer = cached_ask(MaskOverlapQuery(shown, chosen_layer(key)), view.revision)
    except PlainError as error:
        st.caption(NOT_AVAILABLE) if error_shown else show_error(str(error))
        return
    show_panel(MASK_OVERLAP, answer, f"{key}-mask-overlap")
