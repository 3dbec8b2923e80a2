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

CachedContent = TypeVar("CachedContent")


def data_folder() -> Path:
    """The folder ``data`` under COMPRESSION_EXPLORER_HOME, or under
    ~/.cache/compression-explorer.
    """
    return settings.home() / "data"


def load_or_make(
    path: Path,
    read: Callable[[Path], CachedContent],
    make: Callable[[], CachedContent],
    write: Callable[[Path, CachedContent], object],
) -> CachedContent:
    """Content of ``path``; if it is missing or damaged, the result of ``make``, which is then
    cached.
    """
    # errors of pyarrow and numpy for damaged files
    with suppress(OSError, ValueError, EOFError, KeyError, BadZipFile):
        return read(path)
    value = make()
    save_to_cache(path, lambda part: write(part, value))
    return value


def save_to_cache(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a temporary file and rename it, so that no other process reads a partial file."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.remove_leftovers(path.parent)  # left by killed processes
        # numpy would append the suffix otherwise
        with atomic_files.file_draft(path, path.suffix) as draft:
            write(draft)
