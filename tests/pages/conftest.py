"""Fixtures of the tests of the screen."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pages.widgets import state
from tests.tiny import SENTENCES, tiny


@pytest.fixture(scope="session")
def new_home(tmp_path_factory) -> Callable[[], Path]:
    """Makes homes without runs. The extracted corpora, some seconds' work, are common to all of
    them.
    """
    corpora = tmp_path_factory.mktemp("corpora")

    def new_home() -> Path:
        home = tmp_path_factory.mktemp("home")
        (home / "data").symlink_to(corpora, target_is_directory=True)
        return home

    return new_home


@pytest.fixture(scope="module", autouse=True)
def kept_apart(new_home):
    """Nothing is read from or written to this machine's own results and caches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESSION_EXPLORER_HOME", str(new_home()))
        yield Path(os.environ["COMPRESSION_EXPLORER_HOME"])


@pytest.fixture(scope="module")
def session(kept_apart):
    """The real one, with real workers, shared by all pages as on a server."""
    yield state.session()
    state.session().close()
    state.session.clear()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny("llama", tmp_path_factory.mktemp("tiny-llama")))


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(SENTENCES * 20))
    return str(path)
