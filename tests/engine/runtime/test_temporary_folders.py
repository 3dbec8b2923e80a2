"""Temporary folders of killed processes are removed at the next start; others are not touched."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from engine.evaluation.data.cache import save_to_cache
from engine.runtime.platform_support import lock_folder, unlock_folder
from engine.runtime.temporary_folders import (
    PREFIX,
    SETTLING_SECONDS,
    remove_unused_folders,
    temporary_folder,
)

ROOT = Path(__file__).parents[3]
NOBODY = 65534
HOLDER = """
import sys, time
from engine.runtime.temporary_folders import temporary_folder
with temporary_folder("run") as folder:
    (folder / "weights").write_bytes(b"0" * 1000)
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Directory for temporary files of this test."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def make_old(folder: Path, hours: float = 0) -> Path:
    old = time.time() - 2 * SETTLING_SECONDS - 3600 * hours
    os.utime(folder, (old, old), follow_symlinks=False)
    return folder


def make_old_folder(folder: Path) -> Path:
    (folder / "inside").mkdir(parents=True)
    return make_old(folder)


@pytest.fixture
def holder():
    """Process that uses a folder, and the folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER], env=environment, stdout=subprocess.PIPE, text=True
    )
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_is_readable_by_this_user_only_and_removed_afterwards(temporary):
    with temporary_folder("run") as folder:
        assert (
            folder.parent == temporary
            and folder.name.startswith(PREFIX)
            and stat.S_IMODE(folder.stat().st_mode) == 0o700
        )
    assert list(temporary.iterdir()) == []


def test_a_folder_in_use_stays_and_is_removed_once_its_process_was_killed(holder):
    process, folder = holder
    make_old(folder)
    assert remove_unused_folders() == [] and (folder / "weights").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert folder.exists()
    assert remove_unused_folders() == [folder] and not folder.exists()


def test_creating_a_folder_removes_unused_ones(temporary):
    left = make_old_folder(temporary / f"{PREFIX}session-left")
    with temporary_folder("run"):
        assert not left.exists()


def test_a_new_folder_is_not_removed_before_it_can_be_locked(temporary):
    (temporary / f"{PREFIX}run-new").mkdir()
    assert remove_unused_folders() == []


def test_a_folder_used_by_two_processes_stays_until_both_are_gone(temporary):
    folder = make_old_folder(temporary / f"{PREFIX}session-two")
    first, second = lock_folder(folder), lock_folder(folder)
    unlock_folder(first)
    assert remove_unused_folders() == []
    unlock_folder(second)
    assert remove_unused_folders() == [folder]


def test_files_links_and_folders_of_other_names_are_left_alone(temporary):
    target = make_old_folder(temporary / "somebody-elses")
    (temporary / f"{PREFIX}link").symlink_to(target, target_is_directory=True)
    (temporary / f"{PREFIX}file").write_text("")
    for path in temporary.iterdir():
        make_old(path)
    assert (
        remove_unused_folders() == []
        and len(list(temporary.iterdir())) == 3
        and (target / "inside").is_dir()
    )


def test_a_link_inside_a_folder_is_removed_and_not_what_it_leads_to(temporary):
    kept = make_old_folder(temporary / "kept")
    left = make_old_folder(temporary / f"{PREFIX}run-left")
    (left / "link").symlink_to(kept, target_is_directory=True)
    make_old(left)
    assert remove_unused_folders() == [left] and (kept / "inside").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders of other users")
def test_folders_of_other_users_are_left_alone_even_by_root(temporary):
    theirs = make_old_folder(temporary / f"{PREFIX}session-theirs")
    shutil.chown(theirs, NOBODY)
    make_old(theirs)
    assert remove_unused_folders() == [] and theirs.exists()


def test_half_written_files_of_the_cache_are_removed_by_the_next_one_that_is_written(temporary):
    def interrupt_write(part):
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_to_cache(temporary / "tokens.npy", interrupt_write)
    assert list(temporary.iterdir()) == [], "what can tidy up does"
    left = temporary / f".part-{'0' * 32}.npy"
    left.write_text("half")
    make_old(left, hours=2)
    save_to_cache(temporary / "tokens.npy", lambda part: part.write_text("whole"))
    assert [path.name for path in temporary.iterdir()] == ["tokens.npy"]
