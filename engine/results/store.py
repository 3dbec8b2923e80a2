"""Where runs are kept: a folder each, which is the truth, and an index of them, which can always be made again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from engine.errors import PlainError
from engine.results import disk, index, parquet
from engine.results.folder import RUN_ID, Said, missing, said_by
from engine.results.owner import alive, owner
from engine.results.record import RunRecord
from engine.results.tables import Tables

__all__ = ["Store", "home", "owner"]


def home() -> Path:
    """Where results are kept: $COMPRESSION_EXPLORER_HOME, or a folder in the user's cache."""
    chosen = os.environ.get("COMPRESSION_EXPLORER_HOME")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "compression-explorer"


class Store:
    """The runs under ``root``. Any number of processes and threads may use one at once.

    Not ``indexed``, reading leaves no trace in the folder: for the examples that come with the source.
    """

    def __init__(self, root: Path, indexed: bool = True):
        self.root = Path(root)
        self.folders = self.root / "runs"
        self.index = self.root / "runs.sqlite" if indexed else None

    def folder(self, run: str) -> Path:
        """Raises PlainError for an id that is none: it may come from a link, and must not lead out of the store."""
        if not RUN_ID.fullmatch(run):
            raise PlainError(f"{run[:60]!r} is no run: ids are 4 to 40 small letters, digits and hyphens; choose a run from the list.")
        return self.folders / run

    def model_folder(self, run: str) -> Path:
        """Where a run's compressed model is kept, if it is."""
        return self.folder(run) / "model"

    # --- writing: every failure is a PlainError ------------------------------------------------------------------------

    def add(self, record: RunRecord) -> None:
        """A new run. Its folder appears whole or not at all."""
        folder = self.folder(record.id)
        with disk.refused(self.root), draft_of(folder) as draft:
            disk.write(draft / "recipe.yaml", record.recipe.to_yaml().encode())
            seal = disk.write(draft / "record.json", as_json(record))
            if os.path.lexists(folder):
                raise PlainError(f"There is already a run {record.id}; give the new one another id.")
            draft.rename(folder)
        self._note(Said(record, seal))

    def update(self, record: RunRecord) -> None:
        """Replaces what is known of a run, in one step. Refuses one that was deleted meanwhile."""
        folder = self._existing(record.id)
        with disk.refused(self.root):
            seal = disk.write(folder / "record.json", as_json(record))
        self._note(Said(record, seal))

    def finish(self, record: RunRecord, tables: Tables) -> None:
        """Tables first, then the record with status done: a folder that says done is complete."""
        folder = self._existing(record.id)
        try:
            with disk.refused(self.root):
                parquet.save(tables, folder)
            self.update(record.model_copy(update={"status": "done", "finished": record.finished or datetime.now(UTC)}))
        except PlainError:
            parquet.remove(folder)  # on a full disk, room to say that the run failed
            raise

    def delete(self, run: str) -> None:
        folder = self.folder(run)
        if not os.path.lexists(folder):
            raise missing(run)
        gone = self.folders / f".gone-{run}-{os.urandom(4).hex()}"  # so that nobody meets it half deleted
        with disk.refused(self.root):
            folder.rename(gone)
        disk.remove(gone)
        index.asked(self.index, lambda rows: index.forget(rows, {run}))

    def interrupted(self) -> list[RunRecord]:
        """Runs that were queued or running in a process that is gone, now marked so. To be called when the app starts."""
        lost = [cut_short(run) for run in self.records() if run.status in ("queued", "running") and not alive(run.owner)]
        for record in lost:
            with suppress(PlainError):  # a store that cannot be written is still worth reading
                self.update(record)
        return lost

    def rebuild(self) -> None:
        """The index again, from the folders. Happens by itself when it is missing, damaged or of another version."""
        with disk.refused(self.root):
            if self.index:
                index.erase(self.index)
            disk.sweep(self.folders)
        self.records()

    # --- reading: works on a disk that cannot be written ---------------------------------------------------------------

    def record(self, run: str) -> RunRecord:
        """What the run's folder says; status "unreadable" when that cannot be understood. Raises PlainError when there is none."""
        with disk.refused(self.root, "read"):
            return said_by(self.folder(run)).record

    def tables(self, run: str) -> Tables:
        """Raises PlainError when the run is not done or its tables are damaged."""
        record = self.record(run)
        if record.status != "done":
            raise PlainError(record.message or f"Run {run} is {record.status} and has no tables yet; wait until it is done or choose another.")
        return parquet.load(self.folder(run))

    def records(self) -> list[RunRecord]:
        """Every run, newest first. Damaged ones are among them, with status "unreadable" and what to do."""
        with disk.refused(self.root, "read"):
            found = index.asked(self.index, lambda rows: index.current(rows, self.folders))
        return sorted(found, key=lambda run: (run.created.timestamp(), run.id), reverse=True)

    def find(self, key: str) -> RunRecord | None:
        """The newest run with that key that is done or on its way: its answer is, or will be, the same."""
        return next((run for run in self.records() if key == run.key != "" and run.status in ("done", "queued", "running")), None)

    # -----------------------------------------------------------------------------------------------------------------

    def _existing(self, run: str) -> Path:
        folder = self.folder(run)
        if not folder.is_dir():
            raise missing(run)
        return folder

    def _note(self, said: Said) -> None:
        index.asked(
            self.index, lambda rows: index.note(rows, said)
        )  # where it cannot be noted, the next reader finds another seal and reads the folder


@contextmanager
def draft_of(folder: Path) -> Iterator[Path]:
    """A hidden folder beside the one to come; removed unless it was renamed."""
    draft = folder.with_name(f".new-{folder.name}-{os.urandom(4).hex()}")
    draft.mkdir(parents=True)
    try:
        yield draft
    finally:
        disk.remove(draft)


def as_json(record: RunRecord) -> bytes:
    return record.model_dump_json(indent=1).encode()


def cut_short(record: RunRecord) -> RunRecord:
    """The record of a run whose process is gone."""
    when = "before it started" if record.status == "queued" else "while it ran"
    message = f"The program that owned this run ended {when}; run its recipe again."
    return record.model_copy(update={"status": "interrupted", "finished": datetime.now(UTC), "message": message})
