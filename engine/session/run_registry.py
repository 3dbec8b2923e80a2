"""The runs an app knows: those in the store, and those the store would not take, kept in memory
until the app stops.
"""

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
from engine.results.store.process_lease import alive
from engine.results.store.run_folder import Said
from engine.results.store.run_query import RunPage, RunQuery, merged
from engine.results.store.store import Store

UNDER_WAY = ("queued", "running")
Stored = TypeVar("Stored")


@dataclass(frozen=True)
class Unsaved:
    record: RunRecord
    tables: Tables | None
    why: str

    @property
    def shown(self) -> RunRecord:
        message = f"{self.record.message} Not saved, kept until the app stops. {self.why}".strip()
        return self.record.model_copy(update={"message": message})


class Shelf:
    """Safe to use from any number of threads, though a run has one writer at a time."""

    def __init__(self, store: Store):
        self.store = store
        self._lock = threading.Lock()
        self._unsaved: dict[str, Unsaved] = {}
        with suppress(PlainError):  # an unreadable store is said where runs are listed
            store.interrupted()

    def keep(self, record: RunRecord, tables: Tables | None = None) -> None:
        """Save a run in the store, or in memory with the reason if that fails."""
        try:
            self._save(record, tables)
        except PlainError as error:
            with self._lock:
                self._unsaved[record.id] = Unsaved(record, tables, str(error))
        else:
            self._catch_up(record.id)

    def record(self, run: str) -> RunRecord:
        unsaved = self._unsaved.get(run)
        return unsaved.shown if unsaved else self._checked(self.store.record(run))

    def records(self) -> list[RunRecord]:
        """Newest first."""
        known = self._lost() | self._not_saved()
        stored = [
            record for record in self._stored(self.store.records, []) if record.id not in known
        ]
        return sorted(
            [*known.values(), *stored], key=lambda record: (record.created, record.id), reverse=True
        )

    def page(self, query: RunQuery) -> RunPage:
        """A page of the list of runs; stored records are not read."""
        known = self._not_saved()
        stored = self._stored(lambda: self.store.page(query, known.keys()), RunPage())
        if not set(UNDER_WAY).isdisjoint(stored.statuses) and (lost := self._lost()):
            known = lost | known
            stored = self._stored(lambda: self.store.page(query, known.keys()), RunPage())
        return merged([stored, page_of(list(known.values()), query)], query) if known else stored

    def under_way(self) -> str | None:
        """Id of the newest queued or running run."""
        known = self._lost() | self._not_saved()
        stored = [
            record for record in self._stored(self.store.under_way, []) if record.id not in known
        ]
        running = [record for record in [*known.values(), *stored] if record.status in UNDER_WAY]
        return max(running, key=lambda record: (record.created, record.id)).id if running else None

    def similar(self, recipe: Recipe, most: int = 50) -> list[RunRecord]:
        """Latest finished runs with the recipe's techniques and model, newest first, after all
        unsaved ones.
        """
        run, unsaved = RunRecord(id="none", key="", recipe=recipe), list(self._not_saved().values())
        with suppress(PlainError):  # an unreadable store must not prevent a forecast
            return [*unsaved, *self.store.similar(run, most)]
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
                each.shown for each in dict(self._unsaved).values() if each.record.key == key
            ]
            with_key = self._stored(lambda: self.store.with_key(key), [])
            stored = [
                self._checked(record) for record in with_key if record.id not in self._unsaved
            ]
            return next((record for record in [*unsaved, *stored] if self._good(record)), None)
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

    def _not_saved(self) -> dict[str, RunRecord]:
        """Return the runs that are not in the store, or not in their current state."""
        return {run: each.shown for run, each in dict(self._unsaved).items()}

    def _lost(self) -> dict[str, RunRecord]:
        """Return runs whose program has ended, marked as interrupted even if the store cannot be
        written.
        """
        with suppress(PlainError):
            return {record.id: record for record in self.store.interrupted()}
        return {}

    def _stored(self, read: Callable[[], Stored], nothing: Stored) -> Stored:
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
            late = [each for each in self._unsaved.values() if each.record.status not in UNDER_WAY]
        for each in late:
            with suppress(PlainError):
                self._save(each.record, each.tables)
                with self._lock:
                    self._unsaved.pop(each.record.id, None)

    def _checked(self, record: RunRecord) -> RunRecord:
        """Under way in another program, unless that is gone."""
        if record.status not in UNDER_WAY or alive(record.owner):
            return record
        return next(
            (lost for lost in self.store.interrupted() if lost.id == record.id), None
        ) or self.store.record(record.id)

    def _good(self, record: RunRecord) -> bool:
        if record.status != "done":
            return record.status in UNDER_WAY
        if record.summary and record.summary.ended_early:
            return False
        try:
            return bool(self.tables(record.id))
        except PlainError:
            return False


def page_of(records: list[RunRecord], query: RunQuery) -> RunPage:
    """Page of a query among a few records, by the store's rules."""

    def noted(rows) -> RunPage:
        for record in records:
            index.note(rows, Said(record, ""))
        return index.page(rows, query)

    return index.asked(None, noted)
