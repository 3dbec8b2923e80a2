"""Visitors of a shared server can view runs of others but not change them."""

import pytest
import streamlit as st

from engine.recipe import Recipe
from engine.results.schema.record import RunRecord
from engine.results.store.store import Store
from engine.runtime.settings import home
from engine.session.visitors import visitor_id
from pages.widgets import state
from pages.widgets.server_guard import COOKIE
from pages.widgets.visitor import visitor
from tests.pages.sessions import open_page

SECRET = "of this browser"


@pytest.fixture
def shared_server(monkeypatch):
    """Shared server with a browser cookie."""
    monkeypatch.setenv("COMPRESSION_EXPLORER_SHARED", "1")
    monkeypatch.setattr(type(st.context), "cookies", {COOKIE: SECRET})
    yield
    state.session().close()
    state.session.clear()


def store_failed_run(run: str, seed: int, by: str) -> str:
    recipe = Recipe.from_dict(
        {"model": "bundled:docs-lm", "seed": seed, "steps": [{"technique": "round-to-nearest"}]}
    )
    record = RunRecord(
        id=run,
        key=recipe.key(),
        recipe=recipe,
        status="failed",
        message="It failed.",
        visitor=visitor_id(by),
    )
    Store(home()).add(record)
    return run


def buttons(run: str) -> set[str]:
    app = open_page("runs", run=run)
    assert not app.exception
    return {button.key for button in app.button if button.key}


def test_only_own_runs_have_a_delete_button_and_all_can_be_run_again(shared_server):
    own, other = (
        store_failed_run("mine-1", 1, SECRET),
        store_failed_run("theirs-1", 2, "another browser"),
    )
    assert "runs-delete" in buttons(own) and "runs-delete" not in buttons(other)
    assert f"runs-again-{other}" in buttons(other)


def test_without_sharing_every_run_has_a_delete_button(isolated_home, monkeypatch):
    monkeypatch.delenv("COMPRESSION_EXPLORER_SHARED", raising=False)
    assert "runs-delete" in buttons(store_failed_run("theirs-2", 3, "another browser"))
    state.session().close()
    state.session.clear()


def test_a_visitor_is_identified_by_the_cookie_on_a_shared_server_only(shared_server, monkeypatch):
    assert visitor() == visitor_id(SECRET)
    monkeypatch.setenv("COMPRESSION_EXPLORER_SHARED", "0")
    assert visitor() == ""
