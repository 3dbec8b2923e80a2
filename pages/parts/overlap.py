"""How far the pruning methods agree on one layer: asked of a worker, by a person who opens it."""

from typing import Any

import streamlit as st

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.answers import ModelView
from pages.panels import MASK_OVERLAP
from pages.parts.plainly import SAID_ABOVE, kept_answer, said
from pages.parts.show import show
from pages.parts.what_if import looked_at


def overlap(view: ModelView, step: dict[str, Any], recipe: Recipe | None, key: str, refused: bool = False) -> None:
    st.markdown("### Against the other methods")
    if not st.toggle("Compare the weights that each method keeps", key=f"{key}-overlap"):
        return
    try:
        answer = kept_answer("lessons.removal:overlap", view.revision, **looked_at(view, step, recipe, key))
    except PlainError as error:
        st.caption(SAID_ABOVE) if refused else said(str(error))
        return
    show(MASK_OVERLAP, answer, f"{key}-mask-overlap")
