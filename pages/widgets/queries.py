"""Questions to the session, with errors shown as sentences instead of tracebacks."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from engine.errors import PlainError
from engine.queries import Answer, Query
from engine.session.questions import query_key
from pages.widgets.safe_text import literal_markdown
from pages.widgets.state import ask

__all__ = [
    "NOT_AVAILABLE",
    "ask_or_stop",
    "cached_ask",
    "literal_markdown",
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
def show_errors(subject: str) -> Iterator[None]:
    """Show any error of a stored run as a sentence and continue with the page.

    ``what`` starts the sentence, such as "Run 1a2b".
    """
    try:
        yield
    except PlainError as error:
        show_error(str(error))
    except Exception as error:  # stored files may be from another version or edited by hand
        LOG.exception("%s cannot be shown", subject)
        show_error(
            f"{subject} cannot be shown: its record or tables contain unexpected data "
            f"({type(error).__name__}). Run the recipe again, or delete the run."
        )


def show_error(sentence: str) -> None:
    """Show a sentence as text, never as Markdown or HTML, because it may quote user input."""
    st.error(literal_markdown(sentence), icon=":material/error:")


def ask_or_stop(query: Query[Answer], timeout: float = 60) -> Answer:
    """Return a worker's answer; the page ends with an error if there is none."""
    with stop_on_error():
        return ask(query, timeout)


def cached_ask(query: Query[Answer], revision: str) -> Answer:
    """Return an answer that depends only on the revision of a model."""
    return answer_by_key(query_key(query), revision, query)


@st.cache_data(max_entries=64, show_spinner="Computing…")
def answer_by_key(key: str, revision: str, _query: Query[Answer]) -> Answer:
    """Streamlit compares the key, because it cannot compare configs."""
    return ask(_query, timeout=120)
