"""What tests of the screen share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def new_home(tmp_path_factory) -> Callable[[], Path]:
    """Makes homes without runs. The extracted corpora, half a minute's work, are common to all of them."""
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
