"""Starting and stopping the processes of the embedded cluster."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dask.utils import parse_bytes

from engine.errors import PlainError

ROOT = Path(__file__).resolve().parents[2]
MEMORY = "COMPRESSION_EXPLORER_MEMORY"
MEMORY_SHARE = 0.85  # of the machine's, for the worker that runs
LEAST_MEMORY = 200_000_000  # below, a worker would be stopped and started for ever
START_SECONDS = 120
NOT_STARTED = "The background processes did not start; the app's terminal says why. Mend that and try again."


@dataclass(frozen=True)
class Embedded:
    """The host process of a cluster on this machine's loopback."""

    process: subprocess.Popen
    address: str
    scratch: Path  # every temporary file of its processes

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


def started() -> Embedded:
    """Once its scheduler listens; the workers come a moment later. Raises PlainError."""
    workers = {"run": run_memory(), "ask": 0}
    scratch = Path(tempfile.mkdtemp(prefix="compression-explorer-session-"))
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.session.host", json.dumps({"workers": workers, "scratch": str(scratch)})],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(scratch),
        start_new_session=True,  # Ctrl-C in the terminal is the app's to answer
    )
    embedded = Embedded(process, first_line(process), scratch)
    if not embedded.address:
        embedded.stop()
        raise PlainError(NOT_STARTED)
    return embedded


def first_line(process: subprocess.Popen) -> str:
    """What the process says first; empty when it ends or takes too long."""
    patience = threading.Timer(START_SECONDS, process.kill)
    patience.start()
    try:
        return process.stdout.readline().strip()
    finally:
        patience.cancel()


def run_memory() -> int | float:
    """Bytes as asked for in COMPRESSION_EXPLORER_MEMORY, or a share of what there is."""
    asked = os.environ.get(MEMORY)
    if not asked:
        return MEMORY_SHARE
    try:
        memory = parse_bytes(asked)
    except ValueError:
        raise PlainError(f"{MEMORY} is {asked[:40]!r}, which is no amount of memory; set it to one such as 8GB, or unset it.") from None
    if memory < LEAST_MEMORY:
        raise PlainError(f"{MEMORY} is {asked[:40]!r}, too little for a worker to start with; set it to one such as 8GB, or unset it.")
    return memory


def environment(scratch: Path) -> dict[str, str]:
    """What the processes inherit: where the engine lies, where temporary files go, and quiet."""
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    folders = dict.fromkeys(("TMPDIR", "TEMP", "TMP", "DASK_TEMPORARY_DIRECTORY"), str(scratch))
    quiet = {"DASK_LOGGING__DISTRIBUTED": "critical", "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore")}
    return os.environ | folders | quiet | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
