"""Dask clusters in processes of their own for tests, and jobs that replace runs without importing
torch.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import Cancelled
from engine.events import ProgressEvent
from engine.session.worker_tasks import ProgressChannel
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def dask_process(folder: Path, *arguments: Any) -> Iterator[subprocess.Popen]:
    """Start ``dask scheduler`` or ``dask worker``, which can import the engine and these tests."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    }
    command = [sys.executable, "-m", "dask", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        env=environment | {"DASK_LOGGING__DISTRIBUTED": "critical"},
        cwd=folder,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def dask_scheduler(folder: Path, *options: Any) -> Iterator[str]:
    """Start a scheduler and return its address."""
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    with dask_process(
        folder,
        "scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        0,
        "--no-dashboard",
        "--scheduler-file",
        file,
        *options,
    ) as process:
        wait_for(
            lambda: process.poll() is not None or (file.exists() and file.read_text().endswith("}"))
        )
        assert process.poll() is None, "the scheduler ended as it started"
        yield json.loads(file.read_text())["address"]


def dask_worker(folder: Path, address: str, *options: Any) -> Any:
    """Start a worker without a nanny, which is not restarted after it is killed."""
    options = (
        "--nthreads",
        1,
        "--no-nanny",
        "--no-dashboard",
        "--local-directory",
        folder,
        *options,
    )
    return dask_process(folder, "worker", address, *options)


def run_until_cancelled(recipe: dict, run: str, keep: str, limit: Any = None) -> None:
    """Replacement for ``run_recipe`` that has finished 6 of 30 layers and then waits."""
    channel = ProgressChannel(run)
    channel.report(ProgressEvent("compressing", 6, 30))
    while not channel.is_cancelled():
        time.sleep(0.05)
    raise Cancelled("The run was canceled.")


def occupied_until(file: str) -> None:
    """Job of another user that ends when a file appears."""
    while not Path(file).exists():
        time.sleep(0.05)
