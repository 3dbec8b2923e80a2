"""Where the finished blocks of runs lie that are not done: a folder for each recipe and place it was computed in."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.results import disk
from engine.results.store import home

KEPT = ("block-*", "training-*.pt")  # what a run goes on from
MOST = 5  # unfinished runs kept, the latest


def folder_of(key: str, place: str) -> Path:
    return home() / "unfinished" / f"{key}-{place}"


def blocks_kept(key: str) -> int:
    """Of the recipe with that key; a training on its way counts as one."""
    with suppress(OSError):
        return sum(len(list((home() / "unfinished").glob(f"{key}-*/{kept}"))) for kept in KEPT)
    return 0


def forget(key: str) -> None:
    """Remove what is kept of a recipe, unless a run is at it."""
    for folder in (home() / "unfinished").glob(f"{key}-*"):
        remove_unless_held(folder)


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Whether the folder, made where there is none, is this process's alone; false also where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError:
        yield False
        return
    with lock:
        yield locked(lock)


def locked(file) -> bool:
    """Until the file is closed, or the process ends in whatever way."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sweep(mine: Path) -> None:
    """Forget all but the latest, and those that a run is at."""
    with suppress(OSError):
        others = sorted((path for path in mine.parent.iterdir() if path != mine), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[MOST - 1 :]:
            remove_unless_held(path)


def remove_unless_held(folder: Path) -> None:
    with held(folder) as mine:
        if mine:
            disk.remove(folder)
