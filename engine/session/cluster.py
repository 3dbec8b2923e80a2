"""The processes behind the session: an embedded cluster of one scheduler and two workers, or a cluster that exists already."""

import os
from pathlib import Path

import dask
import psutil
from distributed import Client
from distributed.deploy.spec import SpecCluster
from distributed.deploy.subprocess import SubprocessScheduler, SubprocessWorker

from engine.errors import PlainError
from engine.results.store import owner
from engine.session.leash import OWNER

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "DASK_SCHEDULER_ADDRESS"
LEASH = "engine.session.leash"


def connected() -> Client:
    """A client of the cluster that DASK_SCHEDULER_ADDRESS names, else of an embedded one.

    Raises PlainError when the named cluster cannot be reached.
    """
    address = os.environ.get(ADDRESS)
    if not address:
        return Client(embedded(), set_as_default=False)
    try:
        return Client(address, timeout=10, set_as_default=False)
    except OSError:
        raise PlainError(f"No cluster answers at {address} ({ADDRESS}); start one there, or unset the variable to use the built-in one.") from None


def embedded() -> SpecCluster:
    """One worker for runs and one for quick questions, a thread each, on this machine's loopback."""
    settle_environment()
    memory = os.environ.get("COMPRESSION_EXPLORER_MEMORY") or int(psutil.virtual_memory().total * 0.85)
    workers = {name: worker(name, memory if name == "run" else "0") for name in ("run", "ask")}
    scheduler = {
        "cls": SubprocessScheduler,
        "options": {
            "scheduler_kwargs": {
                "host": "127.0.0.1",
                "port": 0,
                "dashboard": False,
                "dashboard_address": None,
                "preload": [LEASH],
            }
        },
    }
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}):
        return SpecCluster(workers=workers, scheduler=scheduler, name="compression-explorer", silence_logs="ERROR")


def worker(name: str, memory: int | str) -> dict:
    options = {
        "host": "127.0.0.1",
        "nthreads": 1,
        "name": name,
        "resources": {name: 1},
        "memory_limit": memory,
        "preload": [LEASH],
        "preload_nanny": [LEASH],
        "silence_logs": "ERROR",
        "dashboard": False,
    }
    return {"cls": SubprocessWorker, "options": {"worker_class": "distributed.Nanny", "worker_kwargs": options}}


def settle_environment() -> None:
    """What the child processes inherit: where the engine lies, whom to leave with, and how a lost worker is treated."""
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))
    os.environ[OWNER] = owner()
    os.environ["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = "0"  # a run that killed its worker is not tried on the next one
    os.environ["DASK_DISTRIBUTED__WORKER__MEMORY__TARGET"] = os.environ["DASK_DISTRIBUTED__WORKER__MEMORY__SPILL"] = "false"
    os.environ["DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE"] = "false"
    os.environ["DASK_LOGGING__DISTRIBUTED"] = "error"
    os.environ.setdefault("PYTHONWARNINGS", "ignore")


def restricted(client: Client, resource: str) -> dict[str, float] | None:
    """The resource to ask for, or None when no worker of the cluster offers it."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return {resource: 1} if any(resource in each.get("resources", {}) for each in workers) else None


def run_slots(client: Client) -> int:
    """How many runs may go on at once: the workers that offer the resource "run", at least one."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return max(1, sum("run" in each.get("resources", {}) for each in workers))
