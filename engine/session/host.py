"""The process that holds the embedded cluster: a scheduler, and the nannies of a worker for runs and one for quick questions.

It prints its address, and leaves with its workers when its standard input ends, which is when the app does, however it went.
Not distributed's SubprocessCluster: that outlives an app killed with -9, gives a restarting worker up for good after a
while, leaves files in the temporary folder, needs five processes instead of three, and does not know Windows.
"""

import asyncio
import json
import os
import shutil
import sys
import threading
from contextlib import AsyncExitStack

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
    with dask.config.set(SETTINGS):
        asyncio.run(host(asked["workers"]))
