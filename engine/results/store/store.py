"""Store of runs: one folder per run, which is authoritative, and an index that can be rebuilt."""

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

from engine.errors import PlainError
from engine.results.schema.record import RunRecord
from engine.results.schema.run_tables import TABLES, Tables
from engine.results.store import atomic_files, index, parquet
from engine.results.store.process_lease import current_owner, is_owner_alive
from engine.results.store.run_folder import RUN_ID, LoadedRecord, missing_run_error, read_record
from engine.results.store.run_query import IndexedRun, RunPage, RunQuery

__all__ = ["Store", "current_owner"]

Answer = TypeVar("Answer")


class Store:
    """The runs under ``root``. Any number of processes and threads may use one at once.

    Not ``indexed``, reading leaves no trace in the folder: for the examples that come with the
    source.
    """

    def __init__(self, root: Path, indexed: bool = True):
        self.root = Path(root)
        self.folders = self.root / "runs"
        self.index = self.root / "runs.sqlite" if indexed else None

    def folder(self, run: str) -> Path:
        """Raises PlainError for an id that is none: it may come from a link, and must not lead out
        of the store.
        """
        if not RUN_ID.fullmatch(run):
            raise PlainError(
                f"{run[:60]!r} is no run: ids are 4 to 40 small letters, digits and hyphens; "
                "choose a run from the list."
            )
        return self.folders / run

    def model_folder(self, run: str) -> Path:
        """Directory of a run's compressed model, if it was kept."""
        return self.folder(run) / "model"

    # --- writing: every failure is a PlainError ---------------------------------------------------

    def add(self, record: RunRecord) -> None:
        """A new run. Its folder appears whole or not at all."""
        folder = self.folder(record.id)
        with atomic_files.explain_os_errors(self.root), draft_folder(folder) as draft:
            atomic_files.atomic_write(draft / "recipe.yaml", record.recipe.to_yaml().encode())
            seal = atomic_files.atomic_write(draft / "record.json", outcome_json(record))
            if os.path.lexists(folder):
                raise PlainError(
                    f"There is already a run {record.id}; give the new one another id."
                )
            draft.rename(folder)
        self._index_record(LoadedRecord(record, seal))

    def update(self, record: RunRecord) -> None:
        """Replaces what is known of a run, in one step. Refuses one that was deleted meanwhile."""
        folder = self._existing_folder(record.id)
        with atomic_files.explain_os_errors(self.root):
            seal = atomic_files.atomic_write(folder / "record.json", outcome_json(record))
        self._index_record(LoadedRecord(record, seal))

    def finish(self, record: RunRecord, tables: Tables) -> None:
        """Tables first, then the record with status done: a folder that says done is complete."""
        folder = self._existing_folder(record.id)
        try:
            with atomic_files.explain_os_errors(self.root):
                parquet.save(tables, folder)
            self.update(
                record.model_copy(
                    update={"status": "done", "finished": record.finished or datetime.now(UTC)}
                )
            )
        except PlainError:
            parquet.remove(folder)  # on a full disk, room to say that the run failed
            raise

    def delete(self, run: str) -> None:
        folder = self.folder(run)
        if not os.path.lexists(folder):
            raise missing_run_error(run)
        # so that it is never read half deleted
        gone = self.folders / f".gone-{run}-{os.urandom(4).hex()}"
        with atomic_files.explain_os_errors(self.root):
            folder.rename(gone)
        atomic_files.remove(gone)
        index.query_index(self.index, lambda rows: index.remove_runs(rows, {run}))

    def mark_interrupted(self) -> list[RunRecord]:
        """Mark runs as interrupted if their process has ended, and return them. Called when the app
        starts.
        """
        lost = [
            interrupted_record(run) for run in self.under_way() if not is_owner_alive(run.owner)
        ]
        for record in lost:
            with suppress(PlainError):  # a store that cannot be written is still worth reading
                self.update(record)
        return lost

    def rebuild(self) -> None:
        """The index again, from the folders. Happens by itself when it is missing, damaged or of
        another version.
        """
        with atomic_files.explain_os_errors(self.root):
            if self.index:
                index.erase(self.index)
            atomic_files.remove_leftovers(self.folders)
        self.records()

    # --- reading: works on a disk that cannot be written ------------------------------------------

    def record(self, run: str) -> RunRecord:
        """Read the record in the run's folder; its status is "unreadable" if it is invalid. Raises
        PlainError if there is none.
        """
        with atomic_files.explain_os_errors(self.root, "read"):
            return read_record(self.folder(run)).record

    def tables(self, run: str, names: Collection[str] = tuple(TABLES)) -> Tables:
        """Tables of a run; those not named stay empty.

        Raises PlainError if the run is not done or its tables are damaged.
        """
        record = self.record(run)
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
        return self._query(index.every_record)

    def page(self, query: RunQuery, without: Collection[str] = ()) -> RunPage:
        """A page of the list of runs, read from the index; ``without`` names runs to exclude."""
        return self._query(lambda rows: index.page(rows, query, without))

    def under_way(self) -> list[RunRecord]:
        """Queued and running runs, newest first, even if their program has ended."""
        return self._query(index.under_way)

    def find(self, key: str) -> RunRecord | None:
        """The newest run with that key that is done or on its way: its answer is, or will be, the
        same.
        """
        return next(iter(self.runs_with_key(key)), None)

    def runs_with_key(self, key: str) -> list[RunRecord]:
        """Return the runs with the key that are done, queued or running, newest first."""
        return self._query(lambda rows: index.runs_with_key(rows, key))

    def similar_runs(self, run: RunRecord, most: int) -> list[RunRecord]:
        """Latest finished runs with the same techniques, model, kind of task and device, newest
        first; ``run`` need not be stored.
        """
        like = IndexedRun.from_record(run)
        return self._query(
            lambda rows: index.similar_runs(
                rows, like.model, like.techniques, like.task, like.device, most
            )
        )

    # ----------------------------------------------------------------------------------------------

    def _query(self, question: Callable[[Connection], Answer]) -> Answer:
        """Answer a question from the synchronized index."""

        def synchronized_query(rows: Connection) -> Answer:
            index.synchronize_index(rows, self.folders)
            return question(rows)

        with atomic_files.explain_os_errors(self.root, "read"):
            return index.query_index(self.index, synchronized_query)

    def _existing_folder(self, run: str) -> Path:
        folder = self.folder(run)
        if not folder.is_dir():
            raise missing_run_error(run)
        return folder

    def _index_record(self, loaded: LoadedRecord) -> None:
        index.query_index(
            self.index, lambda rows: index.index_record(rows, loaded)
        )  # where it cannot be noted, the next reader finds another seal and reads the folder


@contextmanager
def draft_folder(folder: Path) -> Iterator[Path]:
    """Hidden folder next to the final one; removed unless it was renamed."""
    draft = folder.with_name(f".new-{folder.name}-{os.urandom(4).hex()}")
    draft.mkdir(parents=True)
    try:
        yield draft
    finally:
        atomic_files.remove(draft)


def outcome_json(record: RunRecord) -> bytes:
    return record.model_dump_json(indent=1).encode()


def interrupted_record(record: RunRecord) -> RunRecord:
    """The record of a run whose process is gone."""
    when = "before it started" if record.status == "queued" else "while it ran"
    message = f"The program that owned this run ended {when}; run its recipe again."
    return record.model_copy(
        update={"status": "interrupted", "finished": datetime.now(UTC), "message": message}
    )
