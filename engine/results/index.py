"""The SQLite index of the run folders: only a memory of what they said, checked against them at every reading."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from engine.errors import PlainError
from engine.results.disk import seal_of
from engine.results.folder import RUN_ID, Said, said_by
from engine.results.record import RunRecord

SCHEMA = 1  # another number in the file has the index made again
BUSY_SECONDS = 10
DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)  # the first: tables of another shape
MADE_AGAIN = f"""
    BEGIN IMMEDIATE;
    DROP TABLE IF EXISTS runs;
    CREATE TABLE runs (id TEXT PRIMARY KEY, key TEXT, status TEXT, created REAL, seal TEXT, record TEXT);
    PRAGMA user_version = {SCHEMA};
    COMMIT;
"""
Answer = TypeVar("Answer")
Question = Callable[[sqlite3.Connection], Answer]


def asked(path: Path | None, question: Question[Answer]) -> Answer:
    """The answer of the index at ``path``. One that is damaged is made again; without one, or where none can be written, one in memory answers."""
    for _ in range(2 if path and path.parent.is_dir() else 0):
        try:
            with opened(str(path)) as index:
                return question(index)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in DAMAGED:  # locked, full, read-only
                break
            with suppress(OSError):
                erase(path)
    with opened(":memory:") as index:
        return question(index)


@contextmanager
def opened(path: str) -> Iterator[sqlite3.Connection]:
    """A connection for one question: threads cannot share one, and an index that was erased is not held on to."""
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as index, index:
        index.execute("PRAGMA journal_mode = WAL").fetchone()
        index.execute("PRAGMA synchronous = NORMAL")
        if index.execute("PRAGMA user_version").fetchone() != (SCHEMA,):
            index.executescript(MADE_AGAIN)
        yield index


def erase(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def current(index: sqlite3.Connection, folders: Path) -> list[RunRecord]:
    """Every run, in any order. Folders whose seal is known are not read again; the index learns what is new and forgets what is gone."""
    known = {run: (seal, text) for run, seal, text in index.execute("SELECT id, seal, record FROM runs").fetchall()}
    present = seals(folders)
    forget(index, known.keys() - present.keys())
    return [record for run, seal in present.items() for record in recalled(known.get(run), seal) or learned(index, folders / run)]


def seals(folders: Path) -> dict[str, str]:
    """The seal of each run's record as it is on disk; empty where there is none."""
    try:
        return {folder.name: seal_at(folder) for folder in folders.iterdir() if RUN_ID.fullmatch(folder.name)}
    except FileNotFoundError:
        return {}


def seal_at(folder: Path) -> str:
    try:
        return seal_of((folder / "record.json").stat())
    except OSError:
        return ""


def recalled(row: tuple[str, str] | None, seal: str) -> list[RunRecord]:
    """What the index remembers, if that is still what the folder says."""
    with suppress(ValueError):  # a row written by another version of the engine
        return [RunRecord.model_validate_json(row[1])] if row and row[0] == seal else []
    return []


def learned(index: sqlite3.Connection, folder: Path) -> list[RunRecord]:
    """What the folder says; nothing when it has just been deleted. Damaged folders are read anew each time: they may be repaired."""
    with suppress(PlainError):
        said = said_by(folder)
        if said.seal:
            note(index, said)
        return [said.record]
    return []


def note(index: sqlite3.Connection, said: Said) -> None:
    run = said.record
    row = (run.id, run.key, run.status, run.created.timestamp(), said.seal, run.model_dump_json())
    index.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?)", row)


def forget(index: sqlite3.Connection, runs: set[str]) -> None:
    index.executemany("DELETE FROM runs WHERE id = ?", [(run,) for run in runs])
