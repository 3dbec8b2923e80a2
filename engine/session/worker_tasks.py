"""Tasks sent to workers: a question, or a recipe to run. Importing this module imports neither
torch nor Streamlit; what computes is imported by its name in the worker.
"""

import importlib
import logging
import pkgutil
import time
import traceback
from collections.abc import Callable
from typing import Any

from engine.errors import Cancelled, PlainError
from engine.events import Message, ProgressEvent
from engine.queries import Answer, Query
from engine.results.schema.tables import CurveRow
from engine.runtime.local_paths import PathLimit, apply_path_limit

NO_MEMORY = (
    "There was not enough memory for this ({place}); choose a smaller model, fewer tokens or a "
    "shorter context."
)
SECONDS_BETWEEN_REPORTS = 0.1
SECONDS_BETWEEN_CHECKS = 0.5  # between checks for cancellation: a round trip to the scheduler


def answer_query(query: Query[Answer], limit: PathLimit | None = None) -> Answer:
    """Answer a question. Runs in a worker."""
    with apply_path_limit(limit):
        return with_plain_errors(
            lambda: pkgutil.resolve_name("engine.interactive.answers:answer")(query)
        )


def preload_module(module: str) -> None:
    """Import a module in an idle worker, because importing torch takes seconds."""
    importlib.import_module(module)


def run_recipe(recipe: dict[str, Any], run: str, keep: str, limit: PathLimit | None = None) -> Any:
    """Carry out a run, and send its progress to the topic of its name. Runs in a worker."""
    channel = ProgressChannel(run)
    channel.report(ProgressEvent("starting"))
    run_job = "engine.pipeline.job:run_job"
    with apply_path_limit(limit):
        return with_plain_errors(
            lambda: pkgutil.resolve_name(run_job)(
                recipe, run, keep, channel.report, channel.is_cancelled, channel.stream
            )
        )


class ProgressChannel:
    """Channel from a run to the app, and the flag that asks the run to stop."""

    def __init__(self, run: str):
        from distributed import Event, get_worker

        self.run, self.worker, self.event = run, get_worker(), Event(f"cancel-{run}")
        self.identity: tuple[Any, ...] = ()  # of the last stage sent
        self.sent = self.checked = 0.0
        self.stop = False
        self.waiting: list[CurveRow] = []  # rows of a curve that are not sent yet

    def report(self, event: ProgressEvent) -> None:
        """Send the beginning and end of every stage; between these, at most as often as a user
        could read it.
        """
        if (
            event.identity == self.identity
            and event.done < event.total
            and time.monotonic() - self.sent < SECONDS_BETWEEN_REPORTS
        ):
            return
        self.identity, self.sent = event.identity, time.monotonic()
        curves, self.waiting = tuple(self.waiting), []
        message = Message(event, time.time(), curves, self.worker.address)
        self.worker.log_event(self.run, message.as_dict())

    def stream(self, rows: list[CurveRow]) -> None:
        """Keep rows of a training's curves, which travel with the next event."""
        self.waiting += rows

    def is_cancelled(self) -> bool:
        if time.monotonic() - self.checked > SECONDS_BETWEEN_CHECKS:
            self.checked, self.stop = time.monotonic(), self.event.is_set()
        return self.stop


def with_plain_errors(work: Callable[[], Any]) -> Any:
    """Return the result of ``work``, and replace any exception by a plain error.

    It is raised outside the handler: an error is pickled with the one in its context, and a torch
    exception would import torch in the app.
    """
    try:
        return work()
    except Exception as error:
        plain = plain_of(error)
    raise plain


def plain_of(error: Exception) -> PlainError:
    """Return the error as one of the classes that the app can unpickle, without its context."""
    if isinstance(error, PlainError):
        return (Cancelled if isinstance(error, Cancelled) else PlainError)(str(error))
    if place := where_memory_ran_out(error):
        return PlainError(NO_MEMORY.format(place=place))
    logging.getLogger("compression-explorer").error("".join(traceback.format_exception(error)))
    said = f"{type(error).__name__}: {str(error)[:200]}"
    return PlainError(
        f"Unexpected error ({said}); the app's terminal has the details. Please report it."
    )


def where_memory_ran_out(error: Exception) -> str:
    """Device on which memory ran out; empty for other errors. Torch raises classes that must not be
    imported here, and RuntimeErrors.
    """
    if type(error).__name__ == "OutOfMemoryError":
        return "on the GPU"
    refused = (
        isinstance(error, MemoryError)
        or "can't allocate memory" in str(error)
        or "not enough memory" in str(error)
    )
    return "on this machine" if refused else ""
