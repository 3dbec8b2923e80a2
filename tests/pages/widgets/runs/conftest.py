"""A store with more runs than fit on a page."""

import pytest
import streamlit as st

from engine.errors import PlainError
from engine.results.store.store import Store
from engine.runtime.settings import home
from engine.session import cluster_connection as link
from pages.widgets import state
from tests.pages.many_runs import MANY, numbered_run, put


@pytest.fixture
def store(request, tmp_path, monkeypatch) -> Store:
    """Store with the requested number of runs."""
    runs = getattr(request, "param", MANY)
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path))
    monkeypatch.setattr(link, "import_and_connect", no_workers)
    state.session.clear()
    st.cache_data.clear()
    store = Store(home())
    for number in range(MANY - runs, MANY):
        put(store, numbered_run(number), with_tables=number >= MANY - 12)
    yield store
    state.session().close()
    state.session.clear()
    st.cache_data.clear()


def no_workers():
    raise PlainError("There are no workers in this test; start the app for some.")
