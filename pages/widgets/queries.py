"""Questions to the session, with errors shown as sentences instead of tracebacks."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import streamlit as st

from engine.errors import PlainError
from pages.widgets.safe_text import escaped
from pages.widgets.state import ask

__all__ = [
    "NOT_AVAILABLE",
    "ask_or_stop",
    "cached_ask",
    "escaped",
    "show_error",
    "show_errors",
    "stop_on_error",
]

LOG = logging.getLogger(__name__)
NOT_AVAILABLE = "Not available for these settings; see the message next to the form."


@contextmanager
def stop_on_error() -> Iterator[None]:
    """Show a PlainError as a sentence and end the page."""
    try:
        yield
    except PlainError as error:
        show_error(str(error))
        st.stop()


@contextmanager
def show_errors(what: str) -> Iterator[None]:
    """Show any error of a stored run as a sentence and continue with the page.

    ``what`` starts the sentence, such as "Run 1a2b".
    """
    try:
        yield
    except PlainError as error:
        show_error(str(error))
    except Exception as error:  # stored files may be from another version or edited by hand
        LOG.exception("%s cannot be shown", what)
        show_error(
            f"{what} cannot be shown: its record or tables contain unexpected data "
            f"({type(error).__name__}). Run the recipe again, or delete the run."
        )


def show_error(sentence: str) -> None:
    """Show a sentence as text, never as Markdown or HTML, because it may quote user input."""
    st.error(escaped(sentence), icon=":material/error:")


def ask_or_stop(name: str, **arguments: Any) -> Any:
    """Return a worker's answer; the page ends with an error if there is none."""
    with stop_on_error():
        return ask(name, **arguments)


@st.cache_data(max_entries=64, show_spinner="Computing…")
def cached_ask(name: str, revision: str, **arguments: Any) -> Any:
    """Return an answer that depends only on the revision of a model."""
    return ask(name, timeout=120, **arguments)
