"""The runs an app knows: those in the store, and those the store would not take, kept in memory until the app stops."""

import threading
from contextlib import suppress
from dataclasses import dataclass

from engine.errors import PlainError
from engine.results.owner import alive
from engine.results.record import RunRecord
from engine.results.store import Store
from engine.results.tables import Tables

UNDER_WAY = ("queued", "running")


@dataclass(frozen=True)
class Unsaved:
    record: RunRecord
    tables: Tables | None
    why: str

    @property
    def shown(self) -> RunRecord:
        return self.record.model_copy(update={"message": f"{self.record.message} Not saved, kept until the app stops. {self.why}".strip()})


class Shelf:
    """Safe to use from any number of threads, though a run has one writer at a time."""

    def __init__(self, store: Store):
        self.store = store
        self._lock = threading.Lock()
        self._unsaved: dict[str, Unsaved] = {}
        with suppress(PlainError):  # an unreadable store is said where runs are listed
            store.interrupted()

    def keep(self, record: RunRecord, tables: Tables | None = None) -> None:
        """In the store, or in memory with the reason."""
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
        unsaved = dict(self._unsaved)
        try:
            stored = [self._checked(record) for record in self.store.records() if record.id not in unsaved]
        except PlainError:
            if not unsaved:
                raise
            stored = []
        return sorted([*(each.shown for each in unsaved.values()), *stored], key=lambda record: record.created, reverse=True)

    def tables(self, run: str) -> Tables:
        unsaved = self._unsaved.get(run)
        return unsaved.tables if unsaved and unsaved.tables is not None else self.store.tables(run)

    def find(self, key: str) -> RunRecord | None:
        """A run with that key which is done, with its tables whole, or on its way."""
        with suppress(PlainError):  # a store that cannot be read holds up nobody's run
            return next((record for record in self.records() if record.key == key and self._good(record)), None)
        return None

    def delete(self, run: str) -> None:
        with self._lock:
            unsaved = self._unsaved.pop(run, None)
        try:
            self.store.delete(run)
        except PlainError:
            if unsaved is None:
                raise

    # -----------------------------------------------------------------------------------------------------------------

    def _save(self, record: RunRecord, tables: Tables | None) -> None:
        if not (self.store.folder(record.id) / "record.json").exists():
            self.store.add(record if tables is None else record.model_copy(update={"status": "running"}))
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
        return next((lost for lost in self.store.interrupted() if lost.id == record.id), None) or self.store.record(record.id)

    def _good(self, record: RunRecord) -> bool:
        if record.status != "done":
            return record.status in UNDER_WAY
        if record.summary and record.summary.ended_early:
            return False
        try:
            return bool(self.tables(record.id))
        except PlainError:
            return False
