"""Store of runs: one folder per run, which is authoritative, and an index that can be rebuilt."""

import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.schema.record import ACTIVE, RunRecord
from engine.results.schema.run_tables import TABLES, Tables
from engine.results.store import index, parquet, run_folder
from engine.results.store.atomic_files import explain_os_errors, remove_leftovers
from engine.results.store.process_lease import is_owner_alive
from engine.results.store.run_query import RunPage, RunQuery, merged_page

Answer = TypeVar("Answer")
Nothing = TypeVar("Nothing")


@dataclass(frozen=True)
class UnsavedRun:
    """A run that could not be written, kept in memory."""

    record: RunRecord
    tables: Tables | None
    why: str

    @property
    def display_record(self) -> RunRecord:
        message = f"{self.record.message} Not saved, kept until the app stops. {self.why}".strip()
        return self.record.model_copy(update={"message": message})


class Store:
    """The runs under ``root``. Any number of processes and threads may use one at once, though a
    run has one writer at a time.

    Runs that cannot be written are kept in memory, and those whose process has ended are shown as
    interrupted. Not ``indexed``, reading leaves no trace in the folder: for the examples that come
    with the source.
    """

    def __init__(self, root: Path, indexed: bool = True):
        self.root = Path(root)
        self.folders = self.root / "runs"
        self.index = self.root / "runs.sqlite" if indexed else None
        self._lock = threading.Lock()
        self._unsaved: dict[str, UnsavedRun] = {}

    def folder(self, run: str) -> Path:
        """Folder of a run.

        Raises PlainError for an invalid id: it may come from a link, and must not lead out of the
        store.
        """
        if not run_folder.RUN_ID.fullmatch(run):
            raise PlainError(
                f"{run[:60]!r} is not a run id: ids have 4 to 40 lowercase letters, digits "
                "and hyphens; choose a run from the list."
            )
        return self.folders / run

    def model_folder(self, run: str) -> Path:
        """Directory of a run's compressed model, if it was kept."""
        return self.folder(run) / "model"

    def kept_model(self, run: str) -> Path | None:
        """The folder of a finished run's compressed model, where it was kept."""
        folder = self.model_folder(run)
        return folder if folder.is_dir() else None

    # --- writing ----------------------------------------------------------------------------------

    def save(self, record: RunRecord, tables: Tables | None = None) -> PlainError | None:
        """Save a run, which is new or has changed, with its tables when it is done.

        If that fails, return the error; the run is then kept in memory with the reason, and saved
        after the next successful save.
        """
        try:
            self._write(record, tables)
        except PlainError as error:
            with self._lock:
                self._unsaved[record.id] = UnsavedRun(record, tables, str(error))
            return error
        self._catch_up(record.id)
        return None

    def delete(self, run: str) -> None:
        """Delete a run. Raises PlainError if there is none or the disk refuses."""
        with self._lock:
            unsaved = self._unsaved.pop(run, None)
        try:
            with explain_os_errors(self.root):
                run_folder.delete_run(self.folder(run))
        except PlainError:
            if unsaved is None:
                raise
        else:
            index.query_index(self.index, lambda rows: index.remove_runs(rows, {run}))

    def mark_interrupted(self) -> list[RunRecord]:
        """Mark runs as interrupted if their process has ended, and return them, even where the
        store cannot be written.
        """
        active = self._query(index.active_records, ())
        lost = [interrupted_record(run) for run in active if not is_owner_alive(run.owner)]
        for record in lost if self.index else []:
            with suppress(PlainError), explain_os_errors(self.root):
                self._note(run_folder.update_run(self.folder(record.id), record))
        return lost

    def rebuild(self) -> None:
        """Rebuild the index from the folders. An index that is missing, damaged or of another
        version is rebuilt automatically.
        """
        with explain_os_errors(self.root):
            if self.index:
                index.erase(self.index)
            remove_leftovers(self.folders)
        self._query(index.all_records, ())

    # --- reading: works on a disk that cannot be written ------------------------------------------

    def record(self, run: str) -> RunRecord:
        """Return the record of a run; its status is "unreadable" if its folder is damaged. Raises
        PlainError if there is none.
        """
        unsaved = self._unsaved.get(run)
        return unsaved.display_record if unsaved else self._current_record(self._stored_record(run))

    def tables(self, run: str, names: Collection[str] = tuple(TABLES)) -> Tables:
        """Tables of a run; those not named may be empty.

        Raises PlainError if the run is not done or its tables are damaged.
        """
        unsaved = self._unsaved.get(run)
        if unsaved and unsaved.tables is not None:
            return unsaved.tables
        record = self._stored_record(run)
        if record.status != "done":
            raise PlainError(
                record.message
                or (
                    f"Run {run} is {record.status} and has no tables yet; wait until it is done "
                    "or choose another."
                )
            )
        return parquet.load(self.folder(run), names)

    def records(self) -> list[RunRecord]:
        """Every run, newest first. Damaged ones are among them, with status "unreadable" and what
        to do.
        """
        known = self._lost_runs() | self._unsaved_records()
        return newest_first(with_known(known, self._query(index.all_records, ())))

    def page(self, query: RunQuery) -> RunPage:
        """A page of the list of runs with filters and sort order; stored records are not read."""

        def stored_page() -> RunPage:
            return self._query(lambda rows: index.run_page(rows, query, known.keys()), RunPage())

        known = self._unsaved_records()
        stored = stored_page()
        if not set(ACTIVE).isdisjoint(stored.statuses) and (lost := self._lost_runs()):
            known = lost | known
            stored = stored_page()
        return (
            merged_page([stored, index.page_of(known.values(), query)], query) if known else stored
        )

    def under_way(self) -> str | None:
        """Id of the newest queued or running run."""
        known = self._lost_runs() | self._unsaved_records()
        runs = newest_first(with_known(known, self._query(index.active_records, ())))
        return next((run.id for run in runs if run.status in ACTIVE), None)

    def similar_runs(self, recipe: Recipe, most: int = 50) -> list[RunRecord]:
        """Latest finished runs with the recipe's techniques, model, kind of task and device, newest
        first, after all unsaved ones, as input for a forecast.
        """
        run, unsaved = RunRecord(id="none", key="", recipe=recipe), self._unsaved_records().values()
        with suppress(PlainError):  # an unreadable store must not prevent a forecast
            stored = self._query(lambda rows: index.similar_records(rows, run, most), ())
            return [*unsaved, *stored]
        return list(unsaved)

    def find(self, key: str) -> RunRecord | None:
        """Return a run with that key that need not be repeated: done with readable tables, queued
        or running.
        """
        with suppress(PlainError):  # an unreadable store does not stop a run
            unsaved = [run for run in self._unsaved_records().values() if run.key == key]
            stored = [
                self._current_record(record)
                for record in self._query(lambda rows: index.records_with_key(rows, key), ())
                if record.id not in self._unsaved
            ]
            return next((run for run in [*unsaved, *stored] if self._is_reusable(run)), None)
        return None

    # ----------------------------------------------------------------------------------------------

    def _query(
        self, question: Callable[[Connection], Answer], nothing: Nothing
    ) -> Answer | Nothing:
        """Answer a question from the synchronized index; ``nothing`` if it cannot be read but there
        are unsaved runs.
        """

        def synchronized_query(rows: Connection) -> Answer:
            index.synchronize_index(rows, self.folders)
            return question(rows)

        try:
            with explain_os_errors(self.root, "read"):
                return index.query_index(self.index, synchronized_query)
        except PlainError:
            if not self._unsaved:
                raise
            return nothing

    def _write(self, record: RunRecord, tables: Tables | None) -> None:
        with explain_os_errors(self.root):
            self._note(run_folder.save_run(self.folder(record.id), record, tables))

    def _note(self, written: run_folder.LoadedRecord) -> None:
        """Index what was written. Where that fails, the next reader finds another stamp and reads
        the folder.
        """
        index.query_index(self.index, lambda rows: index.index_record(rows, written))

    def _catch_up(self, saved: str) -> None:
        """Save ended runs that could not be saved before, because a save has just succeeded."""
        with self._lock:
            self._unsaved.pop(saved, None)
            late = [each for each in self._unsaved.values() if each.record.status not in ACTIVE]
        for each in late:
            with suppress(PlainError):
                self._write(each.record, each.tables)
                with self._lock:
                    self._unsaved.pop(each.record.id, None)

    def _unsaved_records(self) -> dict[str, RunRecord]:
        """Runs that are not in their folders, or not in their current state, by id."""
        return {run: each.display_record for run, each in dict(self._unsaved).items()}

    def _lost_runs(self) -> dict[str, RunRecord]:
        """Runs whose process has ended, by id; none where the store cannot be read."""
        with suppress(PlainError):
            return {record.id: record for record in self.mark_interrupted()}
        return {}

    def _stored_record(self, run: str) -> RunRecord:
        with explain_os_errors(self.root, "read"):
            return run_folder.read_record(self.folder(run)).record

    def _current_record(self, record: RunRecord) -> RunRecord:
        """Return the record; if it is active but its process has ended, the interrupted one."""
        if record.status not in ACTIVE or is_owner_alive(record.owner):
            return record
        lost = next((lost for lost in self.mark_interrupted() if lost.id == record.id), None)
        return lost or self._stored_record(record.id)

    def _is_reusable(self, record: RunRecord) -> bool:
        if record.status != "done":
            return record.status in ACTIVE
        if record.summary and record.summary.ended_early:
            return False
        try:
            return bool(self.tables(record.id))
        except PlainError:
            return False


def with_known(known: dict[str, RunRecord], stored: Iterable[RunRecord]) -> list[RunRecord]:
    """Known runs, and those stored under other ids."""
    return [*known.values(), *(record for record in stored if record.id not in known)]


def newest_first(records: Iterable[RunRecord]) -> list[RunRecord]:
    return sorted(records, key=lambda record: (record.created, record.id), reverse=True)


def interrupted_record(record: RunRecord) -> RunRecord:
    """Record of a run whose process has ended before the run was done."""
    when = "before it started" if record.status == "queued" else "while it ran"
    message = f"The program that owned this run ended {when}; run its recipe again."
    return record.model_copy(
        update={"status": "interrupted", "finished": datetime.now(UTC), "message": message}
    )
