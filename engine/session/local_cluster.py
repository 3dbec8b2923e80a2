"""Starting and stopping the processes of the embedded cluster."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dask.utils import parse_bytes

from engine.errors import PlainError
from engine.runtime import settings
from engine.runtime.platform_support import FolderLock, lock_folder, unlock_folder
from engine.runtime.settings import MEMORY, QUESTION_MEMORY
from engine.runtime.temporary_folders import PREFIX, remove_unused_folders
from engine.session.credentials import Security, security, write_credentials

ROOT = Path(__file__).resolve().parents[2]
MEMORY_SHARE = 0.85  # of the machine's, for the worker that runs
QUESTION_SHARE = 0.3  # per question worker, without mapped files
QUESTION_WORKERS = ("ask-1", "ask-2")
# for questions, started while the others are busy
SPARE_WORKERS = ("ask-3", "ask-4", "ask-5", "ask-6")
# with less, a worker would restart forever
LEAST_MEMORY, LEAST_QUESTION_MEMORY = 200_000_000, 800_000_000
START_SECONDS = 120
NOT_STARTED = (
    "The background processes did not start; the app's terminal shows the reason. "
    "Fix it and try again."
)


@dataclass(frozen=True)
class LocalCluster:
    """Host process of a cluster on the loopback interface, which requires the session's
    certificate.
    """

    process: subprocess.Popen[str]
    address: str
    scratch: Path  # credentials and temporary files of its processes
    lock: FolderLock | None = None  # on the scratch folder, so that no other app removes it

    @property
    def security(self) -> Security:
        return security(self.scratch)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def send(self, command: Literal["kill", "start", "end"], worker: str) -> None:
        """Have the host kill a worker, whose nanny starts a new one, or start or end a spare one.

        A spare worker that runs is not started again.
        """
        with suppress(OSError, ValueError):  # the host has ended with its workers
            self.process.stdin.write(json.dumps({"command": command, "worker": worker}) + "\n")
            self.process.stdin.flush()

    def stop(self) -> None:
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        unlock_folder(self.lock)
        shutil.rmtree(self.scratch, ignore_errors=True)


def start_local_cluster() -> LocalCluster:
    """Start the embedded cluster and return once its scheduler listens; workers connect shortly
    after. Raises PlainError.
    """
    workers = {"run": memory_limit(MEMORY, MEMORY_SHARE, LEAST_MEMORY)}
    questions = dict.fromkeys(
        QUESTION_WORKERS + SPARE_WORKERS,
        memory_limit(QUESTION_MEMORY, QUESTION_SHARE, LEAST_QUESTION_MEMORY),
    )
    # in the background, because leftover folders may be large
    threading.Thread(target=remove_unused_folders, daemon=True).start()
    scratch = Path(tempfile.mkdtemp(prefix=f"{PREFIX}session-"))  # readable by this user only
    lock = lock_folder(scratch)
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.session.local_cluster_host"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(scratch),
        start_new_session=True,  # Ctrl-C in the terminal is the app's to answer
    )
    embedded = LocalCluster(process, "", scratch, lock)
    try:
        write_credentials(scratch)  # while the host starts
        print(
            json.dumps({"workers": workers, "questions": questions, "scratch": str(scratch)}),
            file=process.stdin,
            flush=True,
        )
        if not (address := first_output_line(process)):
            raise PlainError(NOT_STARTED)
    except BrokenPipeError:  # it ended immediately
        embedded.stop()
        raise PlainError(NOT_STARTED) from None
    except BaseException:
        embedded.stop()
        raise
    return replace(embedded, address=address)


def first_output_line(process: subprocess.Popen[str]) -> str:
    """First output line of the process; empty if it ends or takes too long."""
    patience = threading.Timer(START_SECONDS, process.kill)
    patience.start()
    try:
        return process.stdout.readline().strip()
    finally:
        patience.cancel()


def memory_limit(variable: str, share: float, least: int) -> int | float:
    """Memory limit in bytes from the environment variable, or a share of the machine's memory.

    Raises PlainError for an invalid value.
    """
    asked = settings.memory(variable)
    if not asked:
        return share
    try:
        memory = parse_bytes(asked)
    except ValueError:
        raise PlainError(
            f"{variable} is {asked[:40]!r}, which is not an amount of memory; set it to one "
            "such as 8GB, or unset it."
        ) from None
    if memory < least:
        raise PlainError(
            f"{variable} is {asked[:40]!r}, which is too little for a worker; set it to an "
            "amount such as 8GB, or unset it."
        )
    return memory


def environment(scratch: Path) -> dict[str, str]:
    """Environment variables of the processes: import path, temporary directory and log level."""
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    folders = dict.fromkeys(("TMPDIR", "TEMP", "TMP", "DASK_TEMPORARY_DIRECTORY"), str(scratch))
    quiet = {
        "DASK_LOGGING__DISTRIBUTED": "critical",
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore"),
    }
    return (
        os.environ
        | folders
        | quiet
        | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    )
