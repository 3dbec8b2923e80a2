"""The background session: submit a recipe, follow it, cancel it, ask a quick question.

Nothing here imports torch, and nothing here computes: workers do, in processes of their own.
"""

import atexit
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from time import time
from typing import Any, Literal
from uuid import uuid4

from engine.catalog.models import ModelName
from engine.errors import Cancelled, PlainError
from engine.recipe import Recipe
from engine.results import unfinished
from engine.results.outcome import Outcome
from engine.results.record import RunRecord, Status
from engine.results.store import Store, home, owner
from engine.results.tables import Tables
from engine.session.link import Link
from engine.session.progress import Progress
from engine.session.shelf import UNDER_WAY, Shelf
from engine.session.turns import Turns

__all__ = ["Progress", "Session"]


@dataclass
class Live:
    """A run of this session that is not over. Its state only moves forward, under the session's lock."""

    record: RunRecord
    state: Literal["waiting", "begun", "ending"] = "waiting"
    progress: Progress = field(default_factory=Progress)


class Session:
    """One for a whole server: every browser session shares it, from any thread."""

    def __init__(self, store: Store | None = None):
        self.shelf = Shelf(store or Store(home()))
        self._live: dict[str, Live] = {}
        self._lock = threading.Lock()
        self._link = Link()
        atexit.register(self.close)

    # --- runs ----------------------------------------------------------------------------------------------------------

    def submit(self, recipe: Recipe) -> RunRecord:
        """Queue a run, or return the one with an equal answer that is done or on its way.

        Raises PlainError for a model that cannot be, and when there is no cluster to run it.
        """
        ModelName.parse(recipe.model)
        key = recipe.key()
        return self.shelf.find(key) or self._queued(RunRecord(id=uuid4().hex[:8], key=key, recipe=recipe, owner=owner()))

    def records(self) -> list[RunRecord]:
        """Every run, newest first."""
        return self.shelf.records()

    def record(self, run: str) -> RunRecord:
        return self.shelf.record(run)

    def tables(self, run: str) -> Tables:
        return self.shelf.tables(run)

    def kept_model(self, run: str) -> Path | None:
        """The folder of a finished run's compressed model, where it was kept."""
        folder = self.shelf.store.model_folder(run)
        return folder if folder.is_dir() else None

    def progress(self, run: str) -> Progress:
        live = self._live.get(run)
        return live.progress if live else Progress.outside(self.record(run).status)

    def cancel(self, run: str) -> None:
        """Stop a run between two layers, or take it out of the queue. A finished one is left alone.

        Raises PlainError for a run of another program.
        """
        if self._moved(run, "ending", {"waiting"}):
            self._ended(run, "cancelled", "The run was cancelled while it waited; run it again when you like.")
        elif run in self._live:
            self._link.cluster().cancel(run)
        elif self.record(run).status in UNDER_WAY:
            raise PlainError("This run belongs to another program, which uses the same results folder; cancel it there.")

    def delete(self, run: str) -> None:
        """Forget a finished run, and what it left unfinished. Raises PlainError while it is under way."""
        record = self.record(run)
        if record.status in UNDER_WAY:
            raise PlainError("This run is still under way; cancel it first, then delete it.")
        self.shelf.delete(run)
        if not self.shelf.find(record.key):
            unfinished.forget(record.key)

    def kept(self, record: RunRecord) -> bool:
        """Whether blocks that a run finished before it ended too soon are kept, so that its recipe goes on from there."""
        return unfinished.blocks_kept(record.key) > 0

    # --- questions -----------------------------------------------------------------------------------------------------

    def ask(self, name: str, timeout: float = 60, **arguments: Any) -> Any:
        """The answer of a function in engine.work, such as "answers:what_if". Raises PlainError."""
        return self._link.cluster().ask(f"engine.work.{name}", arguments, timeout)

    def close(self) -> None:
        """Let the cluster go. Runs under way are marked interrupted."""
        atexit.unregister(self.close)
        for run in list(self._live):
            if self._moved(run, "ending", {"waiting", "begun"}):
                self._ended(run, "interrupted", "The app was closed before this run was done; run its recipe again.")
        self._link.close()

    # --- inside --------------------------------------------------------------------------------------------------------

    @cached_property
    def _turns(self) -> Turns[str]:
        return Turns(self._link.cluster().run_slots(), self._see_through)

    def _queued(self, record: RunRecord) -> RunRecord:
        turns = self._first_turns()
        with self._lock:  # the same recipe may be submitted twice at the same moment
            if known := self.shelf.find(record.key):
                return known
            self.shelf.keep(record)
            self._live[record.id] = Live(record)
        turns.queue(record.id)
        return record

    def _first_turns(self) -> Turns[str]:
        self._link.cluster()  # raises where there is none, also later on
        with self._lock:
            return self._turns

    def _see_through(self, run: str) -> None:
        """In a thread of its turn: one run from its beginning to its end, whatever happens."""
        if not self._moved(run, "begun", {"waiting"}):
            return  # cancelled meanwhile
        record = self._live[run].record
        self.shelf.keep(record.model_copy(update={"status": "running"}))
        try:
            keep = str(self.shelf.store.model_folder(run))
            outcome = self._link.cluster().run(record.recipe.model_dump(mode="json"), run, keep, lambda news: self._hear(run, news))
        except Cancelled as stop:
            self._end(run, "cancelled", str(stop))
        except PlainError as error:
            self._end(run, "failed", str(error))
        except Exception as error:  # the thread must live on
            self._end(run, "failed", f"The run was lost ({type(error).__name__}: {str(error)[:200]}); run it again.")
        else:
            self._end(run, "done", outcome=outcome)

    def _hear(self, run: str, news: dict[str, Any]) -> None:
        if live := self._live.get(run):
            live.progress = live.progress.after(news | {"time": time()})  # the worker's clock may be another machine's

    def _moved(self, run: str, to: Literal["begun", "ending"], allowed: set[str]) -> bool:
        """Whether it was this caller who moved the run on; only one may."""
        with self._lock:
            live = self._live.get(run)
            if live is None or live.state not in allowed:
                return False
            live.state = to
            return True

    def _end(self, run: str, status: Status, message: str = "", outcome: Outcome | None = None) -> None:
        if self._moved(run, "ending", {"begun"}):
            self._ended(run, status, message, outcome)

    def _ended(self, run: str, status: Status, message: str = "", outcome: Outcome | None = None) -> None:
        """For the caller who moved it to its end."""
        self._live[run].progress = Progress.outside(status)
        news = {"status": status, "message": message, "finished": datetime.now(UTC), "summary": outcome.summary if outcome else None}
        record = self._live[run].record.model_copy(update=news)
        try:
            self.shelf.keep(record, outcome.tables if outcome else None)
        except Exception as error:
            lost = f"The run was done, but its result could not be kept ({type(error).__name__}: {str(error)[:200]}); please report this recipe."
            self.shelf.keep(record.model_copy(update={"status": "failed", "message": lost, "summary": None}))
        finally:
            self._live.pop(run, None)
