"""Questions to the session, with an error as a sentence on the page instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import streamlit as st

from engine.errors import PlainError
from pages.parts.state import session

SAID_ABOVE = "This cannot be shown under this setting; what is said beside the form above tells why."


@contextmanager
def plainly() -> Iterator[None]:
    """Shows a PlainError as a sentence and ends the page there."""
    try:
        yield
    except PlainError as error:
        said(str(error))
        st.stop()


def said(sentence: str) -> None:
    """A sentence that may quote what somebody typed: shown as text, never as Markdown or HTML."""
    st.error(escaped(sentence), icon=":material/error:")


def escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>()#+-!|$~:" else letter for letter in text)


def asked(name: str, **arguments: Any) -> Any:
    """An answer from a worker; the page ends with a sentence where there is none."""
    with plainly():
        return session().ask(name, **arguments)


@st.cache_data(max_entries=64, show_spinner="Looking closer…")
def kept_answer(name: str, revision: str, **arguments: Any) -> Any:
    """An answer that stays true for one revision of a model."""
    return session().ask(name, timeout=120, **arguments)
