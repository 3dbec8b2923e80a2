"""Peak memory of this process since a moment in time, and keeping it low."""

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Forget the peak so far, where the system allows it (Linux)."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return


def peak_rss_bytes() -> int:
    """Most memory in use at once, with the pages of mapped files."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def give_back() -> None:
    """Hand memory that was freed back to the system: glibc keeps a hundred megabytes of it between
    small things that stay.
    """
    # other systems do it by themselves, or not at all
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
