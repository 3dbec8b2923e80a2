"""Finished blocks of incomplete runs, in one folder per recipe and compute settings."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from engine.results.store import atomic_files
from engine.runtime.settings import home

RESUMABLE_FILES = ("block-*", "training-*.pt")  # what a run resumes from
KEY = re.compile(r"[0-9a-z-]{1,64}")
MAX_UNFINISHED = 5  # unfinished runs kept, the latest


def unfinished_folder(key: str, place: str) -> Path:
    return home() / "unfinished" / f"{key}-{place}"


def finished_block_count(key: str) -> int:
    """Number of finished blocks of the recipe with that key; a started training counts as one."""
    with suppress(OSError):
        return sum(
            len(list(folder.glob(kept)))
            for folder in unfinished_folders(key)
            for kept in RESUMABLE_FILES
        )
    return 0


def unfinished_folders(key: str) -> list[Path]:
    """Folders of a key; none if the key is invalid, because it would be used as a file pattern."""
    return list((home() / "unfinished").glob(f"{key}-*")) if KEY.fullmatch(key) else []


def remove_unfinished(key: str) -> None:
    """Remove the finished blocks of a recipe, unless a run is using them."""
    for folder in unfinished_folders(key):
        remove_unless_held(folder)


@contextmanager
def exclusive_folder(folder: Path) -> Iterator[bool]:
    """Create and lock the folder. Yields False if another process holds it or it cannot be
    created.
    """
    # no soft lock, which a killed process would leave behind
    lock = FileLock(folder / "lock", blocking=False, fallback_to_soft=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError):  # locked, or on a disk without locks
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def remove_oldest(current: Path) -> None:
    """Remove all but the latest unfinished runs and those in use."""
    with suppress(OSError):
        others = sorted(
            (path for path in current.parent.iterdir() if path != current),
            key=lambda path: path.stat().st_mtime,
            reverse=True,
        )
        for path in others[MAX_UNFINISHED - 1 :]:
            remove_unless_held(path)


def remove_unless_held(folder: Path) -> None:
    with exclusive_folder(folder) as mine:
        if mine:
            atomic_files.remove(folder)
