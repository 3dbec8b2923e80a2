"""Folder of a run on disk, the authoritative source for its record: writing, reading, deleting.

Functions that write raise OSError if the disk is full or read-only.
"""

import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from engine.errors import PlainError
from engine.recipe import Recipe, with_newer_fields
from engine.recipe.text import parse
from engine.results.schema.record import RunRecord
from engine.results.schema.run_tables import Tables
from engine.results.store import parquet
from engine.results.store.atomic_files import atomic_write, folder_draft, read_regular_file, remove
from engine.results.store.run_query import IndexedRun, time_from_seconds

RUN_ID = re.compile(r"[0-9a-z-]{4,40}")
MOST_BYTES = 4_000_000  # of a record; records have a few thousand
MOST_RECIPE_BYTES = 100_000
# errors that last until the folder changes
LASTING_ERRORS = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EFBIG)


@dataclass(frozen=True)
class LoadedRecord:
    """A run's record and the stamp of its source, which changes with the content. An empty stamp
    means that it must be read again.
    """

    record: RunRecord
    stamp: str


# --- writing -----------------------------------------------------------------------------------


def save_run(folder: Path, record: RunRecord, tables: Tables | None = None) -> LoadedRecord:
    """Write a run, which is new or has changed, with its tables when it is done."""
    is_new = not (folder / "record.json").exists()
    if tables is None:
        return add_run(folder, record) if is_new else update_run(folder, record)
    if is_new:
        add_run(folder, record.model_copy(update={"status": "running"}))
    return finish_run(folder, record, tables)


def add_run(folder: Path, record: RunRecord) -> LoadedRecord:
    """Write a new run. Its folder appears whole or not at all.

    Raises PlainError if there is already a run with its id.
    """
    with folder_draft(folder) as draft:
        atomic_write(draft / "recipe.yaml", record.recipe.to_yaml().encode())
        stamp = write_record(draft, record)
        if os.path.lexists(folder):
            raise PlainError(f"There is already a run {record.id}; give the new one another id.")
    return LoadedRecord(record, stamp)


def update_run(folder: Path, record: RunRecord) -> LoadedRecord:
    """Replace the record of a run in one step. Raises PlainError if the run was deleted."""
    check_exists(folder)
    return LoadedRecord(record, write_record(folder, record))


def finish_run(folder: Path, record: RunRecord, tables: Tables) -> LoadedRecord:
    """Write the tables first, then the record with status done: a folder with status done is
    complete.

    Raises PlainError if the run was deleted.
    """
    check_exists(folder)
    done = {"status": "done", "finished": record.finished or datetime.now(UTC)}
    try:
        parquet.save(tables, folder)
        return update_run(folder, record.model_copy(update=done))
    except (OSError, PlainError):
        parquet.remove(folder)  # on a full disk, room to say that the run failed
        raise


def delete_run(folder: Path) -> None:
    """Delete a run, which is never read half deleted. Raises PlainError if there is none."""
    if not os.path.lexists(folder):
        raise missing_run_error(folder.name)
    gone = folder.with_name(f".gone-{folder.name}-{os.urandom(4).hex()}")
    folder.rename(gone)
    remove(gone)


def write_record(folder: Path, record: RunRecord) -> str:
    return atomic_write(folder / "record.json", record.model_dump_json(indent=1).encode())


def check_exists(folder: Path) -> None:
    """Check that the folder of a run exists.

    Raises PlainError if the run was deleted.
    """
    if not folder.is_dir():
        raise missing_run_error(folder.name)


# --- reading -----------------------------------------------------------------------------------


def read_record(folder: Path) -> LoadedRecord:
    """Read the record in a folder; if it is invalid, return one with status "unreadable" and the
    reason.
    """
    try:
        content, stamp = read_regular_file(folder / "record.json", MOST_BYTES)
        record = RunRecord.model_validate_json(content)
        IndexedRun.from_record(record)  # its row in the list must be valid too
    except (OSError, ValueError, OverflowError) as error:
        lasting = not isinstance(error, OSError) or error.errno in LASTING_ERRORS
        return LoadedRecord(
            unreadable_record(folder, damage_reason(error)), damage_stamp(folder) if lasting else ""
        )
    if record.id != folder.name:
        return LoadedRecord(
            unreadable_record(folder, f"its record.json belongs to run {record.id[:40]}"),
            damage_stamp(folder),
        )
    return LoadedRecord(record, stamp)


def damage_stamp(folder: Path) -> str:
    """Stamp of a damaged folder, which changes when it is repaired or made accessible."""
    return ";".join(
        path_stamp(path) for path in (folder, folder / "record.json", folder / "recipe.yaml")
    )


def path_stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return f"{status.st_ctime_ns}:{status.st_mtime_ns}:{status.st_size}:{status.st_ino}"


def damage_reason(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "record.json is missing"
        case NotADirectoryError():
            return "it is a file"
        case OSError():
            return f"record.json: {(error.strerror or 'cannot be read').lower()}"
        case ValidationError():
            return validation_problem(error)
        case OverflowError():
            return "record.json contains a number that is too large"
    return "record.json is cut short or of another version"


def validation_problem(error: ValidationError) -> str:
    """Describe the first error in a record: "record.json does not fit this version at created:
    invalid timezone".
    """
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return "record.json is truncated or not JSON"
    where = ".".join(str(part) for part in first["loc"])[:80] or "its top"
    match first["type"]:
        case "union_tag_invalid":
            what = (
                f"unknown {first['ctx']['discriminator'].strip(chr(39))} "
                f"{str(first['ctx']['tag'])[:40]!r}"
            )
        case "extra_forbidden":
            what = "a field that this version does not know"
        case _:
            what = first["msg"].removeprefix("Value error, ")[:160].rstrip(".")
    return f"record.json does not fit this version at {where}: {what}"


def unreadable_record(folder: Path, problem: str) -> RunRecord:
    """Record of a damaged folder, with its recipe if that is readable. Raises PlainError if the
    folder is gone.
    """
    recipe = recipe_in(folder)
    place = str(folder).encode("utf-8", "replace").decode()
    return RunRecord(
        id=folder.name,
        key="",
        recipe=recipe or Recipe(),
        status="unreadable",
        created=modified_time(folder),
        message=(
            f"This run's files are damaged ({problem}); "
            f"{'run its recipe again or delete it' if recipe else 'delete it'}. They are in "
            f"{place}."
        ),
    )


def recipe_in(folder: Path) -> Recipe | None:
    with suppress(OSError, ValueError):
        text = read_regular_file(folder / "recipe.yaml", MOST_RECIPE_BYTES)[0].decode()
        return Recipe.from_dict(with_newer_fields(parse(text)))
    return None


def modified_time(folder: Path) -> datetime:
    try:
        return time_from_seconds(folder.lstat().st_mtime)
    except FileNotFoundError:
        raise missing_run_error(folder.name) from None


def missing_run_error(run: str) -> PlainError:
    return PlainError(
        f"There is no run {run} here; it may have been deleted. Choose a run from the list."
    )
