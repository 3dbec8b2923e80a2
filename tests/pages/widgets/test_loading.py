from contextlib import contextmanager

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from pages.widgets import loading


@pytest.fixture
def placeholders(monkeypatch):
    """Heights of the placeholders shown, and a session state of the test's own."""
    shown = []

    @contextmanager
    def skeleton(height):
        shown.append(height)
        yield

    monkeypatch.setattr(st, "skeleton", skeleton)
    monkeypatch.setattr(st, "session_state", {})
    return shown


def paint(page):
    with loading.page_painted(page), loading.skeleton(100):
        pass


def test_a_page_shows_placeholders_on_its_first_paint_only(placeholders):
    for page, shown in [
        ("quantize", 1),
        ("quantize", 1),
        ("prune", 2),
        ("prune", 2),
        ("quantize", 3),
    ]:
        paint(page)
        assert len(placeholders) == shown, page


def test_a_page_that_stopped_half_way_shows_its_placeholders_again(placeholders):
    with pytest.raises(RuntimeError), loading.page_painted("quantize"):
        raise RuntimeError("a rerun interrupted the script")
    paint("quantize")
    assert placeholders == [100]


def test_a_placeholder_gives_way_to_the_content():
    def script():
        import streamlit as st

        from pages.widgets.loading import page_painted, skeleton

        with page_painted("quantize"), skeleton(100):
            answer = "computed"
        st.write(answer)

    app = AppTest.from_function(script).run()
    assert not app.exception and [text.value for text in app.markdown] == ["computed"]
