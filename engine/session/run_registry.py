"""The runs an app knows: those in the store, and those the store would not take, kept in memory
until the app stops.
"""

import sqlite3
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.schema.record import RunRecord
from engine.results.schema.run_tables import TABLES, Tables
from engine.results.store import index
from engine.results.store.process_lease import is_owner_alive
from engine.results.store.run_folder import LoadedRecord
from engine.results.store.run_query import RunPage, RunQuery, merged_page
from engine.results.store.store import Store

ACTIVE_STATUSES = ("queued", "running")
Stored = TypeVar("Stored")


@dataclass(frozen=True)
class UnsavedRun:
    record: RunRecord
    tables: Tables | None
    why: str

    @property
    def display_record(self) -> RunRecord:
        message = f"{self.record.message} Not saved, kept until the app stops. {self.why}".strip()
        return self.record.model_copy(update={"message": message})


class RunRegistry:
    """Safe to use from any number of threads, though a run has one writer at a time."""

    def __init__(self, store: Store):
        self.store = store
        self._lock = threading.Lock()
        self._unsaved: dict[str, UnsavedRun] = {}
        with suppress(PlainError):  # an unreadable store is said where runs are listed
            store.mark_interrupted()

    def keep(self, record: RunRecord, tables: Tables | None = None) -> None:
        """Save a run in the store, or in memory with the reason if that fails."""
        try:
            self._save(record, tables)
        except PlainError as error:
            with self._lock:
                self._unsaved[record.id] = UnsavedRun(record, tables, str(error))
        else:
            self._catch_up(record.id)

    def record(self, run: str) -> RunRecord:
        unsaved = self._unsaved.get(run)
        return unsaved.display_record if unsaved else self._current_record(self.store.record(run))

    def records(self) -> list[RunRecord]:
        """Newest first."""
        known = self._lost_runs() | self._unsaved_records()
        stored = [
            record for record in self._read_store(self.store.records, []) if record.id not in known
        ]
        return sorted(
            [*known.values(), *stored], key=lambda record: (record.created, record.id), reverse=True
        )

    def page(self, query: RunQuery) -> RunPage:
        """A page of the list of runs; stored records are not read."""
        known = self._unsaved_records()
        stored = self._read_store(lambda: self.store.page(query, known.keys()), RunPage())
        if not set(ACTIVE_STATUSES).isdisjoint(stored.statuses) and (lost := self._lost_runs()):
            known = lost | known
            stored = self._read_store(lambda: self.store.page(query, known.keys()), RunPage())
        return (
            merged_page([stored, page_of(list(known.values()), query)], query) if known else stored
        )

    def under_way(self) -> str | None:
        """Id of the newest queued or running run."""
        known = self._lost_runs() | self._unsaved_records()
        stored = [
            record
            for record in self._read_store(self.store.under_way, [])
            if record.id not in known
        ]
        running = [
            record for record in [*known.values(), *stored] if record.status in ACTIVE_STATUSES
        ]
        return max(running, key=lambda record: (record.created, record.id)).id if running else None

    def similar_runs(self, recipe: Recipe, most: int = 50) -> list[RunRecord]:
        """Latest finished runs with the recipe's techniques and model, newest first, after all
        unsaved ones.
        """
        run, unsaved = (
            RunRecord(id="none", key="", recipe=recipe),
            list(self._unsaved_records().values()),
        )
        with suppress(PlainError):  # an unreadable store must not prevent a forecast
            return [*unsaved, *self.store.similar_runs(run, most)]
        return unsaved

    def tables(self, run: str, names: Collection[str] = tuple(TABLES)) -> Tables:
        """Tables of a run; those not named may be empty."""
        unsaved = self._unsaved.get(run)
        return (
            unsaved.tables
            if unsaved and unsaved.tables is not None
            else self.store.tables(run, names)
        )

    def find(self, key: str) -> RunRecord | None:
        """A run with that key which is done, with its tables whole, or on its way."""
        with suppress(PlainError):  # an unreadable store does not stop a run
            unsaved = [
                each.display_record
                for each in dict(self._unsaved).values()
                if each.record.key == key
            ]
            with_key = self._read_store(lambda: self.store.runs_with_key(key), [])
            stored = [
                self._current_record(record)
                for record in with_key
                if record.id not in self._unsaved
            ]
            return next(
                (record for record in [*unsaved, *stored] if self._is_reusable(record)), None
            )
        return None

    def delete(self, run: str) -> None:
        with self._lock:
            unsaved = self._unsaved.pop(run, None)
        try:
            self.store.delete(run)
        except PlainError:
            if unsaved is None:
                raise

    # ----------------------------------------------------------------------------------------------

    def _unsaved_records(self) -> dict[str, RunRecord]:
        """Return the runs that are not in the store, or not in their current state."""
        return {run: each.display_record for run, each in dict(self._unsaved).items()}

    def _lost_runs(self) -> dict[str, RunRecord]:
        """Return runs whose program has ended, marked as interrupted even if the store cannot be
        written.
        """
        with suppress(PlainError):
            return {record.id: record for record in self.store.mark_interrupted()}
        return {}

    def _read_store(self, read: Callable[[], Stored], nothing: Stored) -> Stored:
        """Read from the store; return ``nothing`` if it cannot be read but there are unsaved
        runs.
        """
        try:
            return read()
        except PlainError:
            if not self._unsaved:
                raise
            return nothing

    def _save(self, record: RunRecord, tables: Tables | None) -> None:
        if not (self.store.folder(record.id) / "record.json").exists():
            self.store.add(
                record if tables is None else record.model_copy(update={"status": "running"})
            )
        if tables is None:
            self.store.update(record)
        else:
            self.store.finish(record, tables)

    def _catch_up(self, run: str) -> None:
        """The store takes runs (again): so it may take those it refused, which are over."""
        with self._lock:
            self._unsaved.pop(run, None)
            late = [
                each for each in self._unsaved.values() if each.record.status not in ACTIVE_STATUSES
            ]
        for each in late:
            with suppress(PlainError):
                self._save(each.record, each.tables)
                with self._lock:
                    self._unsaved.pop(each.record.id, None)

    def _current_record(self, record: RunRecord) -> RunRecord:
        """Under way in another program, unless that is gone."""
        if record.status not in ACTIVE_STATUSES or is_owner_alive(record.owner):
            return record
        return next(
            (lost for lost in self.store.mark_interrupted() if lost.id == record.id), None
        ) or self.store.record(record.id)

    def _is_reusable(self, record: RunRecord) -> bool:
        if record.status != "done":
            return record.status in ACTIVE_STATUSES
        if record.summary and record.summary.ended_early:
            return False
        try:
            return bool(self.tables(record.id))
        except PlainError:
            return False


def page_of(records: list[RunRecord], query: RunQuery) -> RunPage:
    """Page of a query among a few records, by the store's rules."""

    def indexed_page(rows: sqlite3.Connection) -> RunPage:
        for record in records:
            index.index_record(rows, LoadedRecord(record, ""))
        return index.page(rows, query)

    return index.query_index(None, indexed_page)
