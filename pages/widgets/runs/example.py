"""A finished run shown before the user's first one, from assets/recipes/first-look.yaml."""

from time import sleep

import streamlit as st

from engine.errors import PlainError
from engine.recipe.model_names import ASSETS
from engine.results.store.store import Store
from pages.widgets.runs.results import show_run

EXAMPLES = Store(ASSETS / "examples", indexed=False)
FIRST_LOOK = "first-look"
# seconds; loading the chart library blocks the browser, so buttons appear first
BUTTONS_FIRST = 0.7


def finished_example() -> None:
    try:
        record, tables = EXAMPLES.record(FIRST_LOOK), EXAMPLES.tables(FIRST_LOOK)
    except PlainError:
        return  # a missing example must not stop the page
    st.markdown("### A finished example")
    st.caption(
        "The documentation writer with its linear layers rounded to 4 bits. It is replaced "
        "by your first run."
    )
    if not st.session_state.get("example-seen"):
        sleep(BUTTONS_FIRST)
        st.session_state["example-seen"] = True
    show_run(record, tables, "example")
