"""One module knows the differences between operating systems, and works without their features."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.runtime import platform_support
from engine.runtime.platform_support import (
    LINUX,
    limited_memory,
    lock_folder,
    open_without_waiting,
    peak_rss_bytes,
    private_memory_bytes,
    reset_peak,
    unlock_folder,
    usable_cpus,
)

ROOT = Path(__file__).parents[3]
HOME = ROOT / "engine" / "runtime" / "platform_support.py"
MODULES = {
    "fcntl",
    "grp",
    "msvcrt",
    "multiprocessing.forkserver",
    "multiprocessing.resource_tracker",
    "posix",
    "pty",
    "pwd",
    "resource",
    "signal",
    "termios",
    "winreg",
}
ATTRIBUTES = re.compile(
    r"os\.(fork|forkpty|get(e?[ug]id|pgid|pgrp|sid|priority)|set(e?[ug]id|pgid|sid|priority)|"
    r"kill|killpg|chown|nice|mkfifo|sysconf|uname|wait|waitpid|sched_\w+|O_[A-Z]+)"
)
SYSTEM_FILES = re.compile(r"/(proc|sys|dev)(/|$)")


def differences(source: str) -> Iterator[str]:
    """Names and paths in Python source that not every operating system has."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from MODULES & {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = {f"{module}.{name.name}" for name in node.names}
            yield from MODULES & {module, *names}
            yield from filter(ATTRIBUTES.fullmatch, names)
        elif isinstance(node, ast.Attribute):
            if ATTRIBUTES.fullmatch(ast.unparse(node)) or ast.unparse(node) in MODULES:
                yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and SYSTEM_FILES.match(str(node.value)):
            yield str(node.value)


def test_only_platform_support_uses_what_not_every_system_has():
    files = [ROOT / "app.py", *ROOT.glob("engine/**/*.py"), *ROOT.glob("pages/**/*.py")]
    found = {
        str(path.relative_to(ROOT)): names
        for path in files
        if path != HOME and (names := sorted(differences(path.read_text(encoding="utf-8"))))
    }
    assert not found and len(files) > 100


@pytest.mark.parametrize(
    "source",
    [
        "import fcntl",
        "from resource import getrlimit",
        "import multiprocessing.forkserver",
        "from multiprocessing import forkserver",
        "from os import fork",
        "os.geteuid()",
        "os.open(path, os.O_RDONLY)",
        "len(os.sched_getaffinity(0))",
        "f'/proc/{pid}/statm'",
    ],
)
def test_a_difference_is_found(source):
    assert list(differences(source))


def test_shared_and_exclusive_locks_of_a_folder_exclude_each_other(tmp_path):
    first, second = lock_folder(tmp_path), lock_folder(tmp_path)
    assert first and (second or not LINUX)
    assert lock_folder(tmp_path, exclusive=True) is None
    unlock_folder(first)
    unlock_folder(second)
    alone = lock_folder(tmp_path, exclusive=True)
    assert alone and lock_folder(tmp_path) is None
    unlock_folder(alone)
    assert lock_folder(tmp_path / "nothing") is None


def test_without_fcntl_a_file_in_the_folder_is_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(platform_support, "fcntl", None)
    lock = lock_folder(tmp_path)
    assert lock and [path.name for path in tmp_path.iterdir()] == [platform_support.LOCK_FILE]
    assert lock_folder(tmp_path) is None and lock_folder(tmp_path, exclusive=True) is None
    unlock_folder(lock)
    again = lock_folder(tmp_path, exclusive=True)
    assert again
    unlock_folder(again)


def test_peak_memory_follows_a_large_allocation():
    before = peak_rss_bytes()
    block = bytearray(200_000_000)
    assert peak_rss_bytes() >= psutil.Process().memory_info().rss * 0.9
    assert peak_rss_bytes() >= before
    del block
    reset_peak()
    assert not LINUX or peak_rss_bytes() < before + 150_000_000


def test_memory_is_known_without_system_files_too(monkeypatch):
    own = private_memory_bytes(os.getpid())
    monkeypatch.setattr(platform_support, "LINUX", False)
    everything = private_memory_bytes(os.getpid())
    assert own > 0 and own < 1.5 * everything
    assert peak_rss_bytes() >= everything * 0.5
    reset_peak()
    with limited_memory(1):
        assert len(bytearray(50_000_000)) == 50_000_000


def test_memory_of_a_process_that_has_ended_is_zero():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert private_memory_bytes(process.pid) == 0


def test_processors_are_counted_without_affinity_too(monkeypatch):
    assert usable_cpus() >= 1
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cpus() == os.cpu_count()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_opening_a_pipe_does_not_wait_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with open_without_waiting(tmp_path / "pipe") as pipe:
        assert pipe.read() == b""
