"""CPU time of the idle app: one open page and the background session, then a minute without
activity.

    python -m tests.benchmarks.idle_cpu [SECONDS]

Needs Playwright and Chromium, whose CPU time is not counted. One row per process of the app; the
last row is the total.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.benchmarks.measurement import Measurement, show
from tests.pages.served import browsing, serving, visitor

SECONDS, SETTLING = 60, 30  # measured; before that, for imports, probes and the first page


def measurements(seconds: float = SECONDS) -> Iterator[Measurement]:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home,
        serving(Path(home)) as address,
        browsing() as browser,
    ):
        visitor(browser, address).open("quantize")
        time.sleep(SETTLING)
        server = next(
            process
            for process in psutil.Process().children()
            if "streamlit" in " ".join(process.cmdline())
        )
        before, began = cpu_seconds(server), time.perf_counter()
        time.sleep(seconds)
        after, took = cpu_seconds(server), time.perf_counter() - began
    shares = {
        pid: 100 * (spent - before.get(pid, (0, ""))[0]) / took for pid, (spent, _) in after.items()
    }
    for pid, share in shares.items():
        yield Measurement(f"Idle for {took:.0f} s: {after[pid][1]}", (share,), "% of a core")
    yield Measurement(
        f"Idle for {took:.0f} s: the whole app", (sum(shares.values()),), "% of a core", "2.5%"
    )


def cpu_seconds(server: psutil.Process) -> dict[int, tuple[float, str]]:
    """CPU seconds and name by process id, for the server and its descendants."""
    spent = {}
    for process in (server, *server.children(recursive=True)):
        times, command = process.cpu_times(), " ".join(process.cmdline())
        name = next(
            (
                name
                for name in ("streamlit", "engine.session.local_cluster_host", "forkserver")
                if name in command
            ),
            "another process",
        )
        name = (
            "a worker"
            if name == "forkserver"
            and process.ppid() != server.pid
            and "forkserver" in " ".join(process.parent().cmdline())
            else name
        )
        spent[process.pid] = (times.user + times.system, name)
    return spent


if __name__ == "__main__":
    show(measurements(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
