"""Process that hosts the embedded cluster: a scheduler and the nannies of the workers for runs and
questions.

Its first input line describes the workers, once the credentials are written; later lines are
commands in JSON: kill, start or end the named worker. It prints its address and ends with its
workers when its standard input closes, which happens when the app ends in any way.

It is not distributed's SubprocessCluster, which survives an app killed with -9, eventually gives up
restarting workers, leaves temporary files, needs five processes instead of three, and does not
support Windows.
"""

import asyncio
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dask
import psutil

from engine.runtime.platform_support import (
    can_fork_workers,
    lock_folder,
    private_memory_bytes,
    resource_tracker_pid,
    start_fork_server,
)
from engine.session.local_cluster import LEAST_QUESTION_MEMORY, QUESTION_WORKERS

if TYPE_CHECKING:
    from distributed import Nanny

SETTINGS = {
    "distributed.comm.timeouts.connect": "120s",  # the machine may be busy with something else
    # a silent worker computes; a dead one is its nanny's to notice
    "distributed.scheduler.worker-ttl": None,
    # a run that killed its worker is not tried on the next one
    "distributed.scheduler.allowed-failures": 0,
    # nothing is kept on workers, so there is nothing to move to disk
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    # Idle costs: by default a tick every 20 ms per process and a profiler every 10 ms per worker,
    # for an unused dashboard.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.cycle": "10s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.work-stealing": False,
}
WATCH_SECONDS = 0.2  # interval of checks on the memory of question workers
# none may be there when a process forks; runs take theirs later
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def fork_workers_ready() -> dict[str, str]:
    """Settings with which workers fork from a process that has read torch and the engine once, so
    that one who was killed is back in a moment.

    That process begins to read at once. Where there is a GPU, no such process, or no room for its
    socket's name, each worker starts by itself.
    """
    if not can_fork_workers():
        return {}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    if not start_fork_server(["engine.pipeline.job", "engine.interactive.answers"]):
        return {}
    return {"distributed.worker.multiprocessing-method": "forkserver"}


class Nannies:
    """The nannies of the cluster's workers, by name. Nannies are started and ended on the event
    loop.
    """

    def __init__(self, scheduler: str, options: dict[str, Any]):
        self.scheduler, self.options = scheduler, options
        self.loop = asyncio.get_running_loop()
        self.running: dict[str, Nanny] = {}
        self._changing = asyncio.Lock()  # a worker's name is free once its predecessor has ended

    async def start(self, name: str, memory_limit: float = 0) -> None:
        """Start a worker that offers a resource of its name, unless it runs."""
        from distributed import Nanny

        from engine.session.nodes import PrivateWorker

        if name in self.running:
            return
        self.running[name] = Nanny(
            self.scheduler,
            nthreads=1,
            name=name,
            resources={name: 1},
            memory_limit=memory_limit,
            worker_class=PrivateWorker,
            **self.options,
        )
        await self.running[name]

    async def end(self, name: str) -> None:
        if nanny := self.running.pop(name, None):
            await nanny.close()

    def kill(self, name: str) -> None:
        """Kill a worker; its nanny starts a new one. Thread-safe."""
        if (nanny := self.running.get(name)) and (pid := pid_of(nanny)):
            with suppress(psutil.Error):
                psutil.Process(pid).kill()

    def do(self, command: Literal["kill", "start", "end"], worker: str) -> None:
        """Kill, start or end a worker, from another thread. Starts and ends happen in order."""
        if command == "kill":
            self.kill(worker)
        else:
            asyncio.run_coroutine_threadsafe(
                self._in_order({"start": self.start, "end": self.end}[command], worker), self.loop
            )

    async def _in_order(self, action: Callable[[str], Awaitable[None]], name: str) -> None:
        async with self._changing:
            await action(name)


async def host(
    workers: dict[str, int | float],
    questions: dict[str, int | float],
    scratch: Path,
    started: "Callable[[Nannies], Any]",
) -> None:
    """Start the scheduler and the workers, and run them.

    ``workers`` and ``questions`` map names to memory limits: bytes, or a share of the machine's or
    container's memory. The memory of question workers is watched here instead of by their nannies,
    which would count mapped files. All of them listen on the loopback interface with the session's
    certificate. ``started`` is called with the nannies as soon as the scheduler listens.
    """
    from distributed.system import MEMORY_LIMIT

    from engine.session.credentials import security
    from engine.session.nodes import PrivateScheduler

    private = {"host": "127.0.0.1", "security": security(scratch), "dashboard": False}
    async with PrivateScheduler(port=0, protocol="tls", **private) as scheduler:
        print(scheduler.address, flush=True)
        nannies = Nannies(scheduler.address, private)
        started(nannies)
        limits = {
            name: int(max(LEAST_QUESTION_MEMORY, limit * MEMORY_LIMIT if limit <= 1 else limit))
            for name, limit in questions.items()
        }
        note = partial(
            nannies.loop.call_soon_threadsafe, scheduler.log_event, "worker-restart-memory"
        )
        threading.Thread(target=watch_memory, args=(nannies, limits, note), daemon=True).start()
        always = workers | dict.fromkeys(QUESTION_WORKERS, 0)
        await asyncio.gather(*(nannies.start(name, limit) for name, limit in always.items()))
        await asyncio.Event().wait()


def obey(nannies: "Future[Nannies]", scratch: str) -> None:
    """Carry out the commands on standard input; when it ends, exit immediately, because all results
    have been sent.
    """
    for line in sys.stdin.buffer:
        nannies.result().do(**json.loads(line))
    # Python's resource tracker ends by itself; if it were killed, the event loop, which still runs,
    # would start another
    tracker = resource_tracker_pid()
    for child in psutil.Process().children(recursive=True):
        if child.pid != tracker:
            with suppress(psutil.Error):
                child.kill()
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(0)


def watch_memory(
    nannies: Nannies, limits: dict[str, int], note: Callable[[dict[str, Any]], Any]
) -> None:
    """Kill question workers that exceed their memory limit, and the largest one while all together
    exceed twice the limit. Runs in a thread, because the event loop may be late when memory runs
    out.
    """
    together = len(QUESTION_WORKERS) * max(limits.values())
    while True:
        time.sleep(WATCH_SECONDS)
        used = {
            name: private_memory_bytes(pid)
            for name in limits
            if (nanny := nannies.running.get(name)) and (pid := pid_of(nanny))
        }
        excessive = {name: limits[name] for name, size in used.items() if size > limits[name]}
        if not excessive and sum(used.values()) > together:
            excessive = {max(used, key=used.get): together}
        for name, limit in excessive.items():
            if nanny := nannies.running.get(name):
                note(
                    {"worker": nanny.worker_address, "limit": limit, "together": limit == together}
                )
                nannies.kill(name)


def pid_of(nanny: "Nanny") -> int | None:
    """Process id of the nanny's worker, or None."""
    try:
        return nanny.pid
    except AttributeError:  # it ended in the meantime
        return None


if __name__ == "__main__":  # workers import this module too
    settings = SETTINGS | fork_workers_ready()
    import distributed  # noqa: F401  takes a second, while the app creates the credentials

    asked, started = json.loads(sys.stdin.buffer.readline() or b"{}"), Future()
    if not asked:
        os._exit(0)  # the app has ended
    lock = lock_folder(Path(asked["scratch"]))  # so that no other app removes it
    threading.Thread(target=obey, args=(started, asked["scratch"]), daemon=True).start()
    with dask.config.set(settings):
        asyncio.run(
            host(asked["workers"], asked["questions"], Path(asked["scratch"]), started.set_result)
        )
