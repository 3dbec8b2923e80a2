"""Fixtures of widgets' tests."""

from collections.abc import Iterator

import pytest
import streamlit as st

from pages.widgets import state
from pages.widgets.server_guard import COOKIE

SECRET = "of this browser"


@pytest.fixture
def shared_server(monkeypatch) -> Iterator[str]:
    """Shared server; the value of the browser's cookie."""
    monkeypatch.setenv("COMPRESSION_EXPLORER_SHARED", "1")
    monkeypatch.setattr(type(st.context), "cookies", {COOKIE: SECRET})
    yield SECRET
    state.session().close()
    state.session.clear()
