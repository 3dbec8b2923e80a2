"""Waiting for other threads and processes."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_SECONDS = 600  # the machine may be busy with something else
Value = TypeVar("Value")


def wait_for(condition: Callable[[], Value]) -> Value:
    """Return the first true value of ``condition``."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition was never met"
        time.sleep(0.01)
    return value
