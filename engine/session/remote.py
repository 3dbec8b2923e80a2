"""What a worker is sent: the name of a function and plain arguments. Importing this imports neither torch nor a screen."""

import logging
import os
import pkgutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine.errors import PlainError


def call(name: str, arguments: dict[str, Any]) -> Any:
    """Runs in a worker: the answer of a function by its name."""
    with plainly():
        return pkgutil.resolve_name(name)(**arguments)


@contextmanager
def plainly() -> Iterator[None]:
    """Only plain errors come back: a pickled torch exception would import torch on the screen's side."""
    try:
        yield
    except PlainError as error:
        raise type(error)(str(error)) from None
    except MemoryError:
        raise PlainError("There was not enough memory; choose a smaller model, fewer tokens or a shorter context.") from None
    except Exception as error:
        logging.getLogger("compression-explorer").error(traceback.format_exc())
        raise PlainError(
            f"Something went wrong that should not have ({type(error).__name__}: {str(error)[:200]}); the log has the details."
        ) from None


def run_recipe(recipe: dict, run_id: str) -> Any:
    """Runs in a worker: a whole run, with its progress sent to the topic of its name."""
    from distributed import Event, get_worker

    worker, event = get_worker(), Event(f"cancel-{run_id}")
    looked = {"at": 0.0, "set": False}

    def report(stage: str, done: int, total: int) -> None:
        worker.log_event(run_id, {"stage": stage, "done": done, "total": total, "time": time.time(), "pid": os.getpid()})

    def cancelled() -> bool:
        # a look costs a round trip to the scheduler, so twice a second is enough
        if time.monotonic() - looked["at"] > 0.5:
            looked.update(at=time.monotonic(), set=event.is_set())
        return looked["set"]

    with plainly():
        return pkgutil.resolve_name("engine.work.jobs:run_job")(recipe, run_id, report, cancelled)
