"""Waiting for other threads and processes."""

import time
from collections.abc import Callable
from typing import TypeVar

from engine.results.schema.record import FINISHED, RunRecord
from engine.session import Session

PATIENCE_SECONDS = 600  # the machine may be busy with something else
Value = TypeVar("Value")


def wait_for(condition: Callable[[], Value]) -> Value:
    """Return the first true value of ``condition``."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition was never met"
        time.sleep(0.01)
    return value


def wait_until_finished(session: Session, run: str) -> RunRecord:
    """Return the record of a run after it has ended."""
    wait_for(lambda: session.store.record(run).status in FINISHED)
    return session.store.record(run)
