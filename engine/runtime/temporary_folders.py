"""Temporary folders that a later start removes if their process was killed.

A process locks its folder while using it; the lock ends with the process in any case.
`remove_unused_folders` removes unlocked folders of this user. (systemd-tmpfiles also leaves locked
folders alone.)
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.runtime.local_paths import allow_folder
from engine.runtime.platform_support import is_own, lock_folder, unlock_folder

PREFIX = "compression-explorer-tmp-"  # earlier versions, without locks, used another prefix
SETTLING_SECONDS = 60  # allowed between creating a folder and locking it


@contextmanager
def temporary_folder(kind: str) -> Iterator[Path]:
    """Create a folder that only this user can read, and remove it afterwards; first remove unused
    ones.
    """
    remove_unused_folders()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{kind}-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        lock = lock_folder(folder)
        try:
            with allow_folder(folder):
                yield folder
        finally:
            unlock_folder(lock)


def remove_unused_folders() -> list[Path]:
    """Remove this user's unused temporary folders and return them."""
    removed = []
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and is_left_behind(entry):
                removed += remove_if_unused(Path(entry.path))
    return removed


def is_left_behind(entry: os.DirEntry[str]) -> bool:
    """Return True for a folder of this user that is old enough to be locked if it were in use."""
    with suppress(OSError):
        if entry.is_dir(follow_symlinks=False):
            status = entry.stat(follow_symlinks=False)
            return is_own(status) and time.time() - status.st_mtime > SETTLING_SECONDS
    return False


def remove_if_unused(folder: Path) -> list[Path]:
    lock = lock_folder(folder, exclusive=True)
    if lock is None:
        return []
    # nothing can lock it again: names of temporary folders are random and locked once created
    unlock_folder(lock)
    shutil.rmtree(folder, ignore_errors=True)
    return [] if folder.exists() else [folder]
