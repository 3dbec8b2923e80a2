"""Differences between operating systems, with a fallback for each.

Every other module uses only what Linux, macOS and Windows share; a test checks that.
"""

import ctypes
import multiprocessing.resource_tracker
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil
from filelock import FileLock

try:
    import fcntl
    import resource
except ImportError:  # Windows
    fcntl = resource = None  # type: ignore[assignment]

LINUX = sys.platform == "linux"
PEAK, CLEAR_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# of GPUs: a process that has used one does not survive a fork
GPU_DRIVERS = ("/proc/driver/nvidia", "/dev/dxg", "/dev/kfd")
LOCK_FILE = ".lock"  # in a folder, where folders themselves cannot be locked


# --- processors ----------------------------------------------------------------------------------


def usable_cpus() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux, where containers often get fewer
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --- memory --------------------------------------------------------------------------------------


def reset_peak() -> None:
    """Start measuring peak memory again. Without effect outside Linux."""
    if LINUX:
        with suppress(OSError):
            CLEAR_PEAK.write_text("5")


def peak_rss_bytes() -> int:
    """Peak resident memory of this process in bytes, with mapped files: since `reset_peak` on
    Linux, since its start elsewhere.
    """
    if LINUX and PEAK.exists():
        line = next(line for line in PEAK.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    if resource is None:
        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KB


def free_unused_memory() -> None:
    """Return freed memory to the system: glibc keeps hundreds of megabytes between small blocks
    that are still in use. Other systems do so by themselves, or not at all.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def private_memory_bytes(pid: int) -> int:
    """Memory of a process without mapped files, or with them where the system does not tell; 0 if
    the process has ended.
    """
    if LINUX:
        with suppress(OSError, ValueError):
            _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
            return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


@contextmanager
def limited_memory(limit_bytes: int) -> Iterator[None]:
    """Limit the address space of this process to ``limit_bytes`` more than it has now.

    Compressed or repeated values can unpack to any size, and no file format states it reliably.
    Allocations beyond the limit fail with MemoryError. Without effect outside Linux.
    """
    if not LINUX or resource is None:  # macOS ignores the limit
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = psutil.Process().memory_info().vms + limit_bytes
    for other in (soft, hard):
        limit = limit if other == resource.RLIM_INFINITY else min(limit, other)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# --- files ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FolderLock:
    """Lock on a folder until `unlock_folder` or the end of the process: a descriptor of the locked
    folder, or a locked file in it.
    """

    held: int | FileLock


def lock_folder(folder: Path, exclusive: bool = False) -> FolderLock | None:
    """Lock a folder; return None if it is in use or cannot be locked.

    A lock that is not exclusive can be shared by any number of processes. Where folders cannot be
    locked, a file in it is, and every lock is exclusive.
    """
    if fcntl is None:
        lock = FileLock(folder / LOCK_FILE, blocking=False, thread_local=False)
        try:
            lock.acquire()
        except OSError:  # also filelock's Timeout
            return None
        return FolderLock(lock)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        # of the folder itself, because systemd-tmpfiles leaves such folders alone
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return FolderLock(descriptor)


def unlock_folder(lock: FolderLock | None) -> None:
    if lock is None:
        return
    with suppress(OSError):
        if isinstance(lock.held, int):
            os.close(lock.held)
        else:
            lock.held.release()


def is_own(status: os.stat_result) -> bool:
    """Return True if a file belongs to this user. Windows keeps temporary files of users apart."""
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def open_without_waiting(path: Path) -> BinaryIO:
    """Open a file for reading; a pipe without a writer does not block."""
    return open(path, "rb", opener=nonblocking_descriptor)


def nonblocking_descriptor(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


# --- processes -----------------------------------------------------------------------------------


def can_fork_workers() -> bool:
    """Return True if workers can fork from one process that has imported their modules: on Linux
    without a GPU.
    """
    return LINUX and not any(Path(driver).exists() for driver in GPU_DRIVERS)


def start_fork_server(modules: list[str]) -> bool:
    """Start the process from which workers fork, which imports ``modules`` at once. Returns False
    if it cannot start, such as for lack of room for its socket's name.
    """
    import multiprocessing.forkserver

    multiprocessing.set_forkserver_preload(modules)
    try:
        start_resource_tracker()
        multiprocessing.forkserver.ensure_running()
    except OSError:
        return False
    return True


def start_resource_tracker() -> None:
    """Start multiprocessing's process that removes semaphores of killed workers, without an error
    stream: it prints a traceback for each one that a worker had removed itself.
    """
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("w") as devnull:
            os.dup2(devnull.fileno(), 2)
        multiprocessing.resource_tracker.ensure_running()
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def resource_tracker_pid() -> int | None:
    """Process id of multiprocessing's resource tracker; None if it does not run."""
    return getattr(multiprocessing.resource_tracker._resource_tracker, "_pid", None)
