"""SQLite index of the run folders: a cache of their records, compared with the folders at every
query.
"""

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import PlainError
from engine.results.schema.record import ACTIVE, RunRecord
from engine.results.store.atomic_files import file_stamp
from engine.results.store.run_folder import RUN_ID, LoadedRecord, damage_stamp, read_record
from engine.results.store.run_query import (
    IndexedRun,
    Order,
    RunPage,
    RunQuery,
    RunRow,
    time_from_seconds,
)

SCHEMA = 3  # an index with another number is rebuilt
BUSY_SECONDS = 10
DAMAGED = (  # errors of other schemas and corrupt files; 0: text that is not UTF-8
    0,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_INTERNAL,
)
COLUMNS = [column.name for column in fields(IndexedRun)]
TYPES = {
    "created": "REAL",
    "measured": "INTEGER",
    **dict.fromkeys(("size", "compression", "before", "after", "lost"), "REAL"),
}
COLUMN_TYPES = ", ".join(
    f"{name} {TYPES.get(name, 'TEXT')}{' PRIMARY KEY' * (name == 'id')}" for name in COLUMNS
)
REBUILD_SCRIPT = f"""
    BEGIN IMMEDIATE;
    DROP TABLE IF EXISTS runs;
    CREATE TABLE runs ({COLUMN_TYPES}, stamp TEXT);
    CREATE INDEX runs_by_time ON runs (created, id);
    CREATE INDEX runs_by_key ON runs (key);
    CREATE INDEX runs_by_status ON runs (status);
    PRAGMA user_version = {SCHEMA};
    COMMIT;
"""
LIST_COLUMNS = "id, status, created, label, model, message, size, measure, before, after"
ORDERS: dict[Order, tuple[str, str]] = {  # unknown values come last
    "newest": ("created", "DESC"),
    "oldest": ("created", "ASC"),
    "smallest": ("COALESCE(size, 9e999)", "ASC"),
    "compression": ("COALESCE(compression, -1.0)", "DESC"),
    "quality": ("COALESCE(lost, 9e999)", "ASC"),
    "model": ("model", "ASC"),
    "setting": ("label", "ASC"),
}
MAX_CHOICES = 100  # per filter
ANSWERABLE = ("done", *ACTIVE)
Answer = TypeVar("Answer")
Question = Callable[[sqlite3.Connection], Answer]


class DamagedIndex(sqlite3.DatabaseError):
    """Raised for rows with other types than their columns."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def query_index(path: Path | None, question: Question[Answer]) -> Answer:
    """Answer a question from the index at ``path``. A damaged index is rebuilt. Without a path, or
    if the index cannot be written, a temporary one in memory is used.
    """
    for begin in ("BEGIN", "BEGIN IMMEDIATE") if path and path.parent.is_dir() else ():
        try:
            with open_index(str(path), begin) as index:
                return question(index)
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0)
            if code == sqlite3.SQLITE_BUSY_SNAPSHOT:  # changed by another process since it was read
                continue
            # locked, full, read-only
            if code & 0xFF not in DAMAGED and code != sqlite3.SQLITE_IOERR_SHORT_READ:
                break
            with suppress(OSError):
                erase(path)
    with open_index(":memory:") as index:
        return question(index)


@contextmanager
def open_index(path: str, begin: str = "BEGIN") -> Iterator[sqlite3.Connection]:
    """Open a connection for one question. Synchronization and query are one transaction, so no
    other process can change the index in between. Threads cannot share a connection, and an index
    that was erased must not be held open.
    """
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    with closing(connection) as index, index:
        index.execute("PRAGMA journal_mode = WAL").fetchone()
        index.execute("PRAGMA synchronous = NORMAL")
        if index.execute("PRAGMA user_version").fetchone() != (SCHEMA,):
            index.executescript(REBUILD_SCRIPT)
        index.execute(begin)
        yield index


def erase(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


# --- synchronization with the folders ----------------------------------------------------------


def synchronize_index(index: sqlite3.Connection, folders: Path) -> None:
    """Read new and changed folders and remove deleted ones. Folders with a known stamp are not read
    again.
    """
    rows = index.execute("SELECT id, stamp, status FROM runs").fetchall()
    check_texts(value for row in rows for value in row)
    known = {run: (stamp, status) for run, stamp, status in rows}
    present = record_stamps(folders)
    remove_runs(index, known.keys() - present.keys())
    for run, stamp in present.items():
        known_stamp, status = known.get(run, ("", ""))
        if not stamp or stamp != known_stamp:
            folder = folders / run
            if status != "unreadable" or known_stamp != damage_stamp(folder):
                index_folder(index, folder)


def record_stamps(folders: Path) -> dict[str, str]:
    """Stamp of each run's record on disk; empty if there is none."""
    try:
        with os.scandir(folders) as entries:
            return {
                entry.name: record_stamp(entry.path)
                for entry in entries
                if RUN_ID.fullmatch(entry.name)
            }
    except FileNotFoundError:
        return {}


def record_stamp(folder: str) -> str:
    try:
        # thousands of Paths would take longer than the disk
        return file_stamp(os.stat(f"{folder}/record.json"))  # noqa: PTH116
    except OSError:
        return ""


def index_folder(index: sqlite3.Connection, folder: Path) -> None:
    """Store what a folder contains, or remove it if it has just been deleted."""
    try:
        index_record(index, read_record(folder))
    except PlainError:
        remove_runs(index, {folder.name})


def index_record(index: sqlite3.Connection, loaded: LoadedRecord) -> None:
    row = (*astuple(IndexedRun.from_record(loaded.record)), loaded.stamp)
    index.execute(f"INSERT OR REPLACE INTO runs VALUES ({', '.join('?' * len(row))})", row)


def remove_runs(index: sqlite3.Connection, runs: Collection[str]) -> None:
    index.executemany("DELETE FROM runs WHERE id = ?", [(run,) for run in runs])


# --- queries of a synchronized index -----------------------------------------------------------


def all_records(index: sqlite3.Connection) -> list[RunRecord]:
    """All records, newest first."""
    return records(index, "TRUE")


def records_with_key(index: sqlite3.Connection, key: str) -> list[RunRecord]:
    """Return the runs with a key that are done, queued or running, newest first."""
    return records(index, f"key = ? AND key != '' AND status IN {ANSWERABLE}", key)


def active_records(index: sqlite3.Connection) -> list[RunRecord]:
    """Queued and running runs, newest first, even if their program has ended."""
    return records(index, f"status IN {ACTIVE}")


def records(index: sqlite3.Connection, condition: str, *values: str | int) -> list[RunRecord]:
    rows = index.execute(
        f"SELECT id, record FROM runs WHERE {condition} ORDER BY created DESC, id DESC", values
    ).fetchall()
    return [parsed_record(*row) for row in rows]


def parsed_record(run: str, text: str) -> RunRecord:
    """Parse the record in a row.

    Raises DamagedIndex, after which the index is rebuilt, if it is invalid or from another version.
    """
    try:
        record = RunRecord.model_validate_json(text)
    except (ValueError, TypeError):
        raise DamagedIndex(f"the record of {run}") from None
    if record.id != run:
        raise DamagedIndex(f"the record of {run}")
    return record


def run_page(index: sqlite3.Connection, query: RunQuery, without: Collection[str] = ()) -> RunPage:
    """One page of a query's runs without the excluded ones, with the choices for filters."""
    condition, values = where_clause(query, without)
    expression, direction = ORDERS[query.order]
    beyond, last = "", ()
    if query.after:
        beyond, last = (
            f"AND ({expression}, id) {'<' if direction == 'DESC' else '>'} (?, ?)",
            query.after,
        )
    rows = index.execute(
        (
            f"SELECT {LIST_COLUMNS}, {expression} FROM runs WHERE {condition} {beyond} ORDER BY "
            f"{expression} {direction}, id {direction} LIMIT ?"
        ),
        (*values, *last, query.limit if query.limit < 0 else query.limit + 1),
    ).fetchall()
    shown = rows if query.limit < 0 else rows[: query.limit]
    matching = index.execute(f"SELECT COUNT(*) FROM runs WHERE {condition}", values).fetchone()[0]
    every = where_clause(RunQuery(measured=query.measured), without)
    total = index.execute(f"SELECT COUNT(*) FROM runs WHERE {every[0]}", every[1]).fetchone()[0]
    return RunPage(
        tuple(run_row(row) for row in shown),
        matching,
        total,
        len(shown) < len(rows),
        *filter_choices(index, *every),
    )


def where_clause(query: RunQuery, without: Collection[str]) -> tuple[str, list[str]]:
    parts = {
        "model = ?": [query.model] * bool(query.model),
        "status = ?": [query.status] * bool(query.status),
        "instr(families, ?)": [f"|{query.family}|"] * bool(query.family),
        "instr(techniques, ?)": [f"|{query.technique}|"] * bool(query.technique),
        "instr(words, ?)": query.terms,
        "id NOT IN (SELECT value FROM json_each(?))": [json.dumps(list(without))] * bool(without),
    }
    conditions = [condition for condition, values in parts.items() for _ in values]
    conditions += ["measured = 1"] * query.measured
    return " AND ".join(conditions) or "TRUE", [
        value for values in parts.values() for value in values
    ]


def run_row(row: tuple[Any, ...]) -> RunRow:
    run, status, created, label, model, message, size, measure, before, after, order = row
    texts, numbers = (run, status, label, model, message, measure), (size, before, after)
    if not (
        all(isinstance(text, str) for text in texts)
        and isinstance(created, float)
        and all(isinstance(n, float | None) for n in numbers)
    ):
        raise DamagedIndex(f"the row of {run}")
    size, before, after = (float("nan") if number is None else number for number in numbers)
    return RunRow(
        run,
        status,
        time_from_seconds(created),
        label,
        model,
        message,
        size,
        measure,
        before,
        after,
        (order, run),
    )


def check_texts(values: Iterable[object]) -> None:
    """Check the values of text columns.

    Raises DamagedIndex if any value is not text.
    """
    if not all(isinstance(value, str) for value in values):
        raise DamagedIndex("a value is not text")


def filter_choices(
    index: sqlite3.Connection, condition: str, values: list[str]
) -> list[tuple[str, ...]]:
    """Models, techniques and statuses that occur, most frequent first."""
    models, steps, statuses = (
        index.execute(
            (
                f"SELECT {name}, COUNT(*) FROM runs WHERE {condition} GROUP BY {name} ORDER BY 2 "
                "DESC, 1"
            ),
            values,
        ).fetchall()
        for name in ("model", "techniques", "status")
    )
    check_texts(name for rows in (models, steps, statuses) for name, _ in rows)
    techniques = Counter()
    for names, count in steps:
        techniques.update(dict.fromkeys(names.strip("|").split("|"), count))
    ranked = (
        [name for name, _ in models],
        [name for name, _ in techniques.most_common()],
        [name for name, _ in statuses],
    )
    return [tuple(name for name in names if name)[:MAX_CHOICES] for names in ranked]


def similar_records(index: sqlite3.Connection, run: RunRecord, most: int) -> list[RunRecord]:
    """Latest finished runs with the techniques, model, kind of task and device of ``run``, newest
    first; it need not be stored.
    """
    like = IndexedRun.from_record(run)
    condition = "model = ? AND techniques = ? AND task = ? AND device = ? AND measured = 1"
    newest = f"id IN (SELECT id FROM runs WHERE {condition} ORDER BY created DESC, id DESC LIMIT ?)"
    return records(index, newest, like.model, like.techniques, like.task, like.device, most)


def page_of(runs: Iterable[RunRecord], query: RunQuery) -> RunPage:
    """Page of a query among a few records that are not stored, by the same rules."""
    with open_index(":memory:") as index:
        for run in runs:
            index_record(index, LoadedRecord(run, ""))
        return run_page(index, query)
