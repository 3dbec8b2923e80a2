"""Tasks sent to workers: the name of a function and plain arguments. Importing this module imports
neither torch nor Streamlit.
"""

import importlib
import logging
import pkgutil
import time
import traceback
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

from engine.errors import PlainError
from engine.runtime.local_paths import PathLimit, limited

NO_MEMORY = (
    "There was not enough memory for this ({place}); choose a smaller model, fewer tokens or a "
    "shorter context."
)
SECONDS_BETWEEN_REPORTS = 0.1
SECONDS_BETWEEN_LOOKS = 0.5  # between checks for cancellation: a round trip to the scheduler


def call(name: str, arguments: dict[str, Any], limit: PathLimit | None = None) -> Any:
    """Runs in a worker: the answer of a function by its name."""
    with limited(limit):
        return plainly(lambda: pkgutil.resolve_name(name)(**arguments))


def warmed(module: str) -> None:
    """Runs in a worker that waits: the seconds of importing torch, before a user waits for
    them.
    """
    importlib.import_module(module)


def run_recipe(recipe: dict, run: str, keep: str, limit: PathLimit | None = None) -> Any:
    """Runs in a worker: a whole run, with its progress sent to the topic of its name."""
    wire = Wire(run)
    wire.report("Starting", 0, 0)
    run_job = "engine.pipeline.job:run_job"
    with limited(limit):
        return plainly(
            lambda: pkgutil.resolve_name(run_job)(
                recipe, run, keep, wire.report, wire.cancelled, wire.stream
            )
        )


class Wire:
    """Channel between a run and the app."""

    def __init__(self, run: str):
        from distributed import Event, get_worker

        self.run, self.worker, self.event = run, get_worker(), Event(f"cancel-{run}")
        self.stage, self.told, self.looked, self.stop = "", 0.0, 0.0, False
        self.waiting: list[tuple] = []  # rows of a curve that are not sent yet

    def report(self, stage: str, done: int, total: int) -> None:
        """Every stage's beginning and end; between these, at most as often as a user could
        read it.
        """
        # what comes behind a dot, such as a loss, changes with every step
        name = stage.partition(" · ")[0]
        if (
            name == self.stage
            and done < total
            and time.monotonic() - self.told < SECONDS_BETWEEN_REPORTS
        ):
            return
        self.stage, self.told = name, time.monotonic()
        curves, self.waiting = self.waiting, []
        news = {"stage": stage, "done": done, "total": total, "time": time.time(), "curves": curves}
        self.worker.log_event(self.run, news | {"worker": self.worker.address})

    def stream(self, rows: list[Any]) -> None:
        """Rows of a training's curves, which travel with the next report."""
        self.waiting += [astuple(row) for row in rows]

    def cancelled(self) -> bool:
        if time.monotonic() - self.looked > SECONDS_BETWEEN_LOOKS:
            self.looked, self.stop = time.monotonic(), self.event.is_set()
        return self.stop


def plainly(work: Callable[[], Any]) -> Any:
    """Only plain errors come back, raised where no other is being handled: an error takes along the
    one in its context, and a pickled torch
    exception would import torch on the screen's side.
    """
    try:
        return work()
    except Exception as error:
        plain = plain_of(error)
    raise plain


def plain_of(error: Exception) -> PlainError:
    if isinstance(error, PlainError):
        return type(error)(str(error))
    if place := where_memory_ran_out(error):
        return PlainError(NO_MEMORY.format(place=place))
    logging.getLogger("compression-explorer").error("".join(traceback.format_exception(error)))
    said = f"{type(error).__name__}: {str(error)[:200]}"
    return PlainError(
        f"Something went wrong that should not have ({said}); the app's terminal has the "
        "details. Please report it."
    )


def where_memory_ran_out(error: Exception) -> str:
    """Torch says it with classes that must not be imported here, and with plain RuntimeErrors."""
    if type(error).__name__ == "OutOfMemoryError":
        return "on the GPU"
    refused = (
        isinstance(error, MemoryError)
        or "can't allocate memory" in str(error)
        or "not enough memory" in str(error)
    )
    return "on this machine" if refused else ""
