"""Disk cache of extracted corpora and tokens. If the disk cannot be written, they are computed
again.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from zipfile import BadZipFile

from engine.results.store import atomic_files
from engine.runtime import settings

Kept = TypeVar("Kept")


def kept_in() -> Path:
    """The folder ``data`` under COMPRESSION_EXPLORER_HOME, or under
    ~/.cache/compression-explorer.
    """
    return settings.home() / "data"


def kept_or_made(
    path: Path,
    read: Callable[[Path], Kept],
    make: Callable[[], Kept],
    write: Callable[[Path, Kept], object],
) -> Kept:
    """Content of ``path``; if it is missing or damaged, the result of ``make``, which is then
    cached.
    """
    # what pyarrow and numpy raise at a damaged file
    with suppress(OSError, ValueError, EOFError, KeyError, BadZipFile):
        return read(path)
    made = make()
    keep(path, lambda part: write(part, made))
    return made


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Write under a temporary name and rename it, so that another process reads a whole file or
    none.
    """
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.sweep(path.parent)  # left by killed processes
        # with its suffix, which numpy would otherwise append
        with atomic_files.file_draft(path, path.suffix) as draft:
            write(draft)
