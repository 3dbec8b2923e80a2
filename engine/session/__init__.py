"""The background session: submit a recipe, follow it, cancel it, ask a quick question.

Nothing here imports torch, and nothing here computes: workers do, in processes of their own.
"""

import atexit
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from uuid import uuid4

from distributed import Client, Event, KilledWorker

from engine.catalog.models import ModelName
from engine.errors import Cancelled, PlainError
from engine.recipe import Recipe
from engine.results.record import RunRecord
from engine.results.store import Store, home, owner
from engine.results.tables import Tables
from engine.session.cluster import connected, restricted, run_slots
from engine.session.progress import Progress
from engine.session.remote import call, run_recipe

KILLED = (
    "The worker process was killed while it ran, most often because memory ran out ({pages}). Choose a smaller model, fewer tokens or a shorter "
    "context, or give it more memory; then run it again. Nothing else was lost."
)


class Session:
    """One for a whole server: every browser session shares it."""

    def __init__(self, store: Store | None = None):
        self.store = store or Store(home())
        self._progress: dict[str, Progress] = {}
        self._unsaved: dict[str, tuple[RunRecord, Tables | None]] = {}  # what the store would not take
        self._turns: dict[str, Future] = {}
        self._lock = threading.Lock()
        self._starting = ThreadPoolExecutor(1, thread_name_prefix="cluster").submit(connected)
        atexit.register(self.close)
        with suppress(PlainError):  # an unreadable store is said where runs are listed
            self.store.interrupted()

    # --- runs ----------------------------------------------------------------------------------------------------------

    def submit(self, recipe: Recipe) -> RunRecord:
        """Queue a run, or return the one with an equal answer that is done or on its way. Raises PlainError for a model that cannot be."""
        ModelName.parse(recipe.model)
        with self._lock:
            if known := self.find(recipe):
                return known
            record = RunRecord(id=uuid4().hex[:8], key=recipe.key(), recipe=recipe, owner=owner())
            self._keep(record)
            self._progress[record.id] = Progress()
            self._turns[record.id] = self._queue.submit(self._work, record)
        return record

    def find(self, recipe: Recipe) -> RunRecord | None:
        key = recipe.key()
        kept = [record for record, _ in self._unsaved.values() if record.key == key and record.status in ("queued", "running", "done")]
        return kept[0] if kept else self.store.find(key)

    def records(self) -> list[RunRecord]:
        """Newest first: the store's and what it would not take."""
        unsaved = {run: record for run, (record, _) in self._unsaved.items()}
        try:
            stored = [record for record in self.store.records() if record.id not in unsaved]
        except PlainError:
            if not unsaved:
                raise
            stored = []
        return sorted([*unsaved.values(), *stored], key=lambda record: record.created, reverse=True)

    def record(self, run: str) -> RunRecord:
        return self._unsaved[run][0] if run in self._unsaved else self.store.record(run)

    def tables(self, run: str) -> Tables:
        kept = self._unsaved.get(run)
        return kept[1] if kept and kept[1] is not None else self.store.tables(run)

    def progress(self, run: str) -> Progress:
        return self._progress.get(run, Progress())

    def cancel(self, run: str) -> None:
        """Stop a run between two layers, or take it out of the queue. A finished one is left alone."""
        record = self.record(run)
        turn = self._turns.get(run)
        if turn and turn.cancel():
            self._end(record, "cancelled", "The run was cancelled while it waited; run it again when you like.")
        elif record.status == "running":
            Event(f"cancel-{run}", client=self.client).set()

    def delete(self, run: str) -> None:
        """Forget a finished run. Raises PlainError while it is under way."""
        if self.record(run).status in ("queued", "running"):
            raise PlainError("This run is still under way; cancel it first, then delete it.")
        if self._unsaved.pop(run, None) is None:
            self.store.delete(run)

    # --- questions -----------------------------------------------------------------------------------------------------

    def ask(self, name: str, timeout: float = 60, **arguments: Any) -> Any:
        """The answer of a function in engine.work, such as "answers:what_if". Raises PlainError."""
        try:
            question = self.client.submit(
                call, f"engine.work.{name}", arguments, pure=False, priority=10, resources=restricted(self.client, "ask"), key=f"ask-{uuid4().hex}"
            )  # fmt: skip
            return question.result(timeout)
        except KilledWorker:
            raise PlainError(
                "The worker that answers questions was killed, most often because memory ran out; try a smaller layer or model."
            ) from None
        except TimeoutError:
            raise PlainError(f"No answer within {timeout:.0f} seconds; the machine may be busy. Try again in a moment.") from None

    # --- inside --------------------------------------------------------------------------------------------------------

    @cached_property
    def client(self) -> Client:
        """Waits for the cluster where it is still starting."""
        return self._starting.result()

    @cached_property
    def _queue(self) -> ThreadPoolExecutor:
        # one run a worker: distributed would blame a dying worker on every run that waits for it
        return ThreadPoolExecutor(run_slots(self.client), thread_name_prefix="run")

    def _work(self, record: RunRecord) -> None:
        """A thread of the queue sees one run through, whatever happens."""
        record = record.model_copy(update={"status": "running"})
        self._keep(record)
        try:
            outcome = self._answer(record)
        except Cancelled as stop:
            self._end(record, "cancelled", str(stop))
        except KilledWorker:
            self._end(record, "failed", KILLED.format(pages=self.progress(record.id).sentence()))
        except PlainError as error:
            self._end(record, "failed", str(error))
        except Exception as error:  # the queue's thread must live on
            self._end(record, "failed", f"The run was lost ({type(error).__name__}: {str(error)[:200]}); run it again.")
        else:
            self._finish(record.model_copy(update={"status": "done", "summary": outcome.summary, "finished": datetime.now(UTC)}), outcome.tables)

    def _answer(self, record: RunRecord) -> Any:
        """Send the run to a worker and wait, following its progress."""
        client = self.client
        client.subscribe_topic(record.id, lambda event: self._note(record.id, event[1]))
        try:
            job = client.submit(
                run_recipe, record.recipe.model_dump(mode="json"), record.id, pure=False, key=f"run-{record.id}", resources=restricted(client, "run")
            )  # fmt: skip
            return job.result()
        finally:
            client.unsubscribe_topic(record.id)

    def _note(self, run: str, event: dict) -> None:
        self._progress[run] = self.progress(run).after(event)

    def _end(self, record: RunRecord, status: str, message: str) -> None:
        self._keep(record.model_copy(update={"status": status, "message": message, "finished": datetime.now(UTC)}))

    def _finish(self, record: RunRecord, tables: Tables) -> None:
        try:
            self.store.finish(record, tables)
            self._unsaved.pop(record.id, None)
        except PlainError as error:
            self._unsaved[record.id] = (record.model_copy(update={"message": f"Not saved, kept until the app stops. {error}"}), tables)

    def _keep(self, record: RunRecord) -> None:
        """In the store, or in memory with the reason where the store will not take it."""
        try:
            exists = record.status != "queued" and record.id not in self._unsaved
            (self.store.update if exists else self.store.add)(record)
        except PlainError as error:
            self._unsaved[record.id] = (
                record.model_copy(update={"message": record.message or f"Not saved, kept until the app stops. {error}"}),
                None,
            )

    def close(self) -> None:
        """Let the cluster go. Runs under way are marked interrupted when the app starts again."""
        atexit.unregister(self.close)
        if self._starting.done() and not self._starting.exception():
            cluster = self.client.cluster
            self.client.close(timeout=2)
            if cluster is not None:
                cluster.close(timeout=5)


__all__ = ["Progress", "Session"]
