"""Fixtures of all tests."""

import inspect
import os
from pathlib import Path

import pytest
from hypothesis import settings

for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # as many processes as cores test already
    os.environ.setdefault(threads, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # what waits leaves the core to others
os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")  # as bitsandbytes would

settings.register_profile("patient", deadline=None)  # the machine may be busy with something else
settings.load_profile("patient")

# files that take longest: begun first, so that no process is left alone with one at the end
LONGEST = (
    "test_session",
    "test_browser",
    "test_devices",
    "test_pages",
    "test_run",
    "test_docs_lm",
    "test_experts",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--case", default="", help="run only cases of for_each whose label has this")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: some tests wait for processes of their own."""
    from engine.runtime.platform_support import usable_cpus

    return usable_cpus() + 1


# fixtures that cost nothing; a test with others reads or writes files, or shares a model or cluster
PLAIN_FIXTURES = {"subtests", "pytestconfig", "monkeypatch", "recwarn", "caplog", "capsys"}
SLOW_MARKS = ("gpu", "browser", "usefixtures")


def is_fast(item: pytest.Function) -> bool:
    """True if a test computes from values alone, and its module makes no whole runs."""
    if getattr(vars(item.module).get("run"), "__module__", "") == "engine.pipeline.run":
        return False
    wanted = set(inspect.signature(item.function).parameters)
    wanted -= set(item.callspec.params) if hasattr(item, "callspec") else set()
    return wanted <= PLAIN_FIXTURES and not any(map(item.get_closest_marker, SLOW_MARKS))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and is_fast(item):
            item.add_marker("fast")
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(Path(item.path).stem, len(places)))


@pytest.fixture(scope="module", autouse=True)
def kept_apart(tmp_path_factory):
    """Nothing is read from or written to this machine's own results and caches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path_factory.mktemp("home")))
        yield
