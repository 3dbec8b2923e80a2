"""The process that holds the embedded cluster: a scheduler, and the nannies of a worker for runs and one for quick questions.

It prints its address, and leaves with its workers when its standard input ends, which is when the app does, however it went.
Not distributed's SubprocessCluster: that outlives an app killed with -9, gives a restarting worker up for good after a
while, leaves files in the temporary folder, needs five processes instead of three, and does not know Windows.
"""

import asyncio
import json
import multiprocessing.forkserver
import os
import shutil
import sys
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import dask
import psutil

SETTINGS = {
    "distributed.comm.timeouts.connect": "120s",  # the machine may be busy with something else
    "distributed.scheduler.worker-ttl": None,  # a silent worker computes; a dead one is its nanny's to notice
    "distributed.scheduler.allowed-failures": 0,  # a run that killed its worker is not tried on the next one
    "distributed.worker.memory.target": False,  # nothing is kept on workers, so there is nothing to move to disk
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
}
DRIVERS = ("/proc/driver/nvidia", "/dev/dxg", "/dev/kfd")  # of GPUs: what has touched one does not survive a fork
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # none may be there when a process forks; runs take theirs later


def fork_workers_ready() -> dict[str, str]:
    """Settings with which workers fork from a process that has read torch and the engine once, so that one who was killed is back in a moment.

    That process begins to read at once. Where there is a GPU, no such process, or no room for its socket's name, each worker starts by itself.
    """
    if sys.platform != "linux" or any(Path(driver).exists() for driver in DRIVERS):
        return {}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    multiprocessing.set_forkserver_preload(["engine.work.jobs", "engine.work.answers"])
    try:
        multiprocessing.forkserver.ensure_running()
    except OSError:
        return {}
    return {"distributed.worker.multiprocessing-method": "forkserver"}


async def host(workers: dict[str, int | float]) -> None:
    """Workers by name with their memory limits: bytes, or a share of what the machine or container has; 0 for none."""
    from distributed import Nanny, Scheduler

    async with AsyncExitStack() as stack:
        scheduler = await stack.enter_async_context(Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address=None))
        print(scheduler.address, flush=True)
        nannies = [
            Nanny(scheduler.address, host="127.0.0.1", nthreads=1, name=name, resources={name: 1}, memory_limit=limit, dashboard=False)
            for name, limit in workers.items()
        ]
        await asyncio.gather(*(stack.enter_async_context(nanny) for nanny in nannies))
        await asyncio.Event().wait()


def leave_with_the_app(scratch: str) -> None:
    """Nothing here is worth an orderly end: results have left already, and the scratch folder goes."""
    sys.stdin.buffer.read()
    for child in psutil.Process().children(recursive=True):
        child.kill()
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":  # workers import this module too
    asked = json.loads(sys.argv[1])
    threading.Thread(target=leave_with_the_app, args=(asked["scratch"],), daemon=True).start()
    with dask.config.set(SETTINGS | fork_workers_ready()):
        asyncio.run(host(asked["workers"]))
