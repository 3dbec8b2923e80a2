"""Identity of the process that owns a run, and whether it is still alive."""

import os
from functools import lru_cache

import psutil


def current_owner() -> str:
    """Identity of this process, ``pid:start time``, which no other process ever has."""
    return owner_of(os.getpid())


# by pid, because a fork is another process; kept, because the clock may be set in between
@lru_cache(maxsize=1)
def owner_of(pid: int) -> str:
    return f"{pid}:{psutil.Process(pid).create_time():.2f}"


def is_owner_alive(name: str) -> bool:
    """Return True if the process of an owner still runs."""
    try:
        return name == current_owner() or is_process_running(
            int(name.partition(":")[0]), float(name.partition(":")[2])
        )
    except psutil.AccessDenied:
        return True
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return False


def is_process_running(pid: int, started: float) -> bool:
    process = psutil.Process(pid)
    # the system's start, which this counts from, moves a little when the clock is set
    same = abs(process.create_time() - started) < 2
    return same and process.status() != psutil.STATUS_ZOMBIE
