"""What is made once and kept on disk: extracted corpora and tokens. A disk that cannot be written costs time, never a run."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from uuid import uuid4
from zipfile import BadZipFile

Kept = TypeVar("Kept")


def kept_in() -> Path:
    """The folder ``data`` under COMPRESSION_EXPLORER_HOME, or under ~/.cache/compression-explorer."""
    return Path(os.environ.get("COMPRESSION_EXPLORER_HOME") or "~/.cache/compression-explorer").expanduser() / "data"


def kept_or_made(path: Path, read: Callable[[Path], Kept], make: Callable[[], Kept], write: Callable[[Path, Kept], object]) -> Kept:
    """What ``path`` holds; where it is missing or damaged, what ``make`` gives, kept for the next time."""
    with suppress(OSError, ValueError, EOFError, KeyError, BadZipFile):  # what pyarrow and numpy raise at a damaged file
        return read(path)
    made = make()
    keep(path, lambda part: write(part, made))
    return made


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Write under a temporary name and rename it, so that a reader beside us sees a whole file or none."""
    part = path.with_name(f".{uuid4().hex}{path.suffix}")  # the suffix stays: numpy appends its own to names without it
    with suppress(OSError):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
