"""Placeholders for content that workers still compute."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

FIRST_PAINT = "first-paint"  # in the session state: whether this page was not on the screen before


@contextmanager
def page_painted(page: str) -> Iterator[None]:
    """Run a page's script, and note whether it is its first paint since another page was shown."""
    st.session_state[FIRST_PAINT] = st.session_state.get("page-on-screen") != page
    yield
    st.session_state["page-on-screen"] = page


@contextmanager
def skeleton(height: int) -> Iterator[None]:
    """Show a placeholder of ``height`` pixels while the block runs, on a page's first paint only.

    Later, the previous content stays on the screen until it is replaced.
    """
    if not st.session_state.get(FIRST_PAINT):
        yield
        return
    with st.skeleton(height=height):
        yield
