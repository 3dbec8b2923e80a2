"""A finished run to look at before the first own one: real, made by assets/recipes/first-look.yaml."""

from time import sleep

import streamlit as st

from engine.catalog.models import ASSETS
from engine.errors import PlainError
from engine.results.store import Store
from pages.parts.results import show_run

EXAMPLES = Store(ASSETS / "examples", indexed=False)
FIRST_LOOK = "first-look"
BUTTONS_FIRST = 0.7  # seconds: the browser reads the charts' large library in one go, and shows no button meanwhile


def finished_example() -> None:
    try:
        record, tables = EXAMPLES.record(FIRST_LOOK), EXAMPLES.tables(FIRST_LOOK)
    except PlainError:
        return  # an example is no reason to stop the page
    st.markdown("### A finished example")
    st.caption("The documentation writer with its linear layers rounded to 4 bits. Your own run takes its place.")
    if not st.session_state.get("example-seen"):
        sleep(BUTTONS_FIRST)
        st.session_state["example-seen"] = True
    show_run(record, tables, "example")
