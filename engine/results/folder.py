"""A run's folder on disk and what it says: the truth about a run."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.disk import seal_of
from engine.results.record import RunRecord

RUN_ID = re.compile(r"[0-9a-z-]{4,40}")


@dataclass(frozen=True)
class Said:
    """A run's record, and the seal of the file it was read from: another seal, another content."""

    record: RunRecord
    seal: str


def said_by(folder: Path) -> Said:
    """The record in a folder; where it cannot be understood, one with status "unreadable" and an empty seal."""
    try:
        with (folder / "record.json").open("rb") as file:
            seal = seal_of(os.fstat(file.fileno()))
            record = RunRecord.model_validate_json(file.read())
    except (OSError, ValueError) as error:
        return Said(unreadable(folder, trouble(error)), "")
    if record.id != folder.name:
        return Said(unreadable(folder, f"its record.json is that of run {record.id[:40]}"), "")
    return Said(record, seal)


def trouble(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "record.json is missing"
        case NotADirectoryError():
            return "it is a file"
        case OSError():
            return f"record.json: {(error.strerror or 'cannot be read').lower()}"
    return "record.json is cut short or of another version"


def unreadable(folder: Path, trouble: str) -> RunRecord:
    """Stands for a damaged folder, with its recipe where that survived. Raises PlainError when the folder is gone."""
    recipe = recipe_in(folder)
    return RunRecord(
        id=folder.name,
        key="",
        recipe=recipe or Recipe(),
        status="unreadable",
        created=changed(folder),
        message=f"The folder {folder} is damaged ({trouble}); {'run its recipe again or delete it' if recipe else 'delete it'}.",
    )


def recipe_in(folder: Path) -> Recipe | None:
    with suppress(OSError, ValueError):
        return Recipe.from_yaml((folder / "recipe.yaml").read_text("utf-8"))
    return None


def changed(folder: Path) -> datetime:
    try:
        return datetime.fromtimestamp(folder.lstat().st_mtime, UTC)
    except FileNotFoundError:
        raise missing(folder.name) from None


def missing(run: str) -> PlainError:
    return PlainError(f"There is no run {run} here, it may have been deleted; choose a run from the list.")
