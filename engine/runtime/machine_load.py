"""Load of this machine's processors."""

import os

import psutil

BUSY_LOAD = 2  # processes that want to run, per processor, on average over the last minute


def machine_is_busy() -> bool:
    """Return whether a run would now take notably longer than on an idle machine."""
    return psutil.getloadavg()[0] > BUSY_LOAD * (os.cpu_count() or 1)
