"""Atomic writing of files and folders, and messages for errors of the disk."""

import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import PlainError
from engine.quantities import megabytes
from engine.runtime.platform_support import open_without_waiting

ELSEWHERE = "set COMPRESSION_EXPLORER_HOME to another folder"
ADVICE = {
    errno.ENOSPC: f"delete runs, free some space or {ELSEWHERE}",
    errno.EDQUOT: f"delete runs, free some space or {ELSEWHERE}",
    errno.EROFS: f"make it writable or {ELSEWHERE}",
    errno.EACCES: f"make it accessible or {ELSEWHERE}",
    errno.EPERM: f"make it accessible or {ELSEWHERE}",
    errno.ENOTDIR: f"a file has the name of a required folder; move it or {ELSEWHERE}",
    errno.EEXIST: f"a file has the name of a required folder; move it or {ELSEWHERE}",
    errno.ENOENT: "it may have been deleted meanwhile: try again",
}


@contextmanager
def explain_os_errors(root: Path, action: str = "written to") -> Iterator[None]:
    """Turn an OSError into a PlainError that names the folder and what to do."""
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, f"check the disk or {ELSEWHERE}")
        raise PlainError(
            f"The results folder {root} cannot be {action} "
            f"({(error.strerror or str(error)).lower()}); {advice}."
        ) from None


@contextmanager
def file_draft(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a path to write to, whose file then replaces ``path`` in one step. After an error, the
    previous file stays. ``suffix`` is the draft's, for libraries that append one themselves.
    """
    draft = path.with_name(f".{path.name}-{os.urandom(4).hex()}{suffix}")
    try:
        yield draft
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink()


@contextmanager
def folder_draft(folder: Path) -> Iterator[Path]:
    """Yield a new hidden folder, which is then renamed to ``folder`` in one step, or removed after
    an error. Nothing may have that name by then.
    """
    draft = folder.with_name(f".new-{folder.name}-{os.urandom(4).hex()}")
    draft.mkdir(parents=True)
    try:
        yield draft
        draft.rename(folder)
    finally:
        remove(draft)


def atomic_write(path: Path, content: bytes) -> str:
    """Write a file in one step and return its stamp. After an error, the previous file stays."""
    with file_draft(path) as draft, draft.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        return file_stamp(os.fstat(file.fileno()))


def read_regular_file(path: Path, most_bytes: int) -> tuple[bytes, str]:
    """Return the content and the stamp of a regular file.

    Raises OSError for larger files, and for pipes and devices, which may never end.
    """
    with open_without_waiting(path) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if status.st_size > most_bytes:
            raise OSError(errno.EFBIG, f"it is larger than {megabytes(most_bytes)}")
        return file.read(most_bytes), file_stamp(status)


def file_stamp(status: os.stat_result) -> str:
    """Stamp of a file, which changes when the file is replaced or written to."""
    return f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}"


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder. What cannot be removed stays."""
    with suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(folder: Path, hours: float = 1) -> None:
    """Remove hidden drafts of processes that ended while writing, if older than ``hours``."""
    for path in folder.glob(".*-*"):
        with suppress(OSError):
            if path.lstat().st_mtime < time.time() - hours * 3600:
                remove(path)
