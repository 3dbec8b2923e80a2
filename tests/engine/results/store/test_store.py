"""The store: what was put in comes out, whatever happens in between."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pandas as pd
import psutil
import pytest

from engine.errors import PlainError
from engine.recipe.model_names import ASSETS
from engine.results.schema.record import RunRecord
from engine.results.schema.run_tables import TABLES, Tables
from engine.results.schema.tables import LayerRow, LevelRow, SurfaceRow
from engine.results.store import index, parquet
from engine.results.store.process_lease import current_owner, is_owner_alive
from engine.results.store.run_query import RunQuery
from engine.results.store.store import Store
from engine.runtime.settings import home
from tests.cases import for_each
from tests.runs import finished_record, layer, record, tables

ROOT = Path(__file__).parents[4]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def finished_store(folder: Path) -> Store:
    """A store with run-0001 done."""
    store = Store(folder / "results")
    store.save(record(1, "running"))
    store.save(finished_record(1), tables())
    return store


@pytest.fixture
def store_with_run(tmp_path):
    return finished_store(tmp_path)


def save(store: Store, record: RunRecord, run_tables: Tables | None = None) -> None:
    """Save a run; raise the error if it is kept in memory instead."""
    if error := store.save(record, run_tables):
        raise error


def ids(records):
    return [run.id for run in records]


def assert_equal(left: Tables, right: Tables):
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(left, name), getattr(right, name), check_exact=True)


# --- what was put in comes out --------------------------------------------------------------------


def test_a_record_is_read_back_unchanged(store):
    store.save(record(1))
    assert store.record("run-0001") == record(1) == Store(store.root).records()[0]


def test_an_update_replaces_the_record_everywhere(store):
    store.save(record(1))
    store.save(record(1, "failed", message="Out of memory; choose a smaller model."))
    assert (
        store.record("run-0001")
        == store.records()[0]
        == record(1, "failed", message="Out of memory; choose a smaller model.")
    )


def test_the_newest_run_is_first_whatever_order_they_came_in(store):
    for number in (2, 3, 1):
        store.save(record(number))
    assert ids(store.records()) == ["run-0003", "run-0002", "run-0001"]


def test_an_empty_store_has_no_runs_and_makes_no_folder(store):
    assert (
        store.records() == []
        and store.find("key-1") is None
        and store.mark_interrupted() == []
        and not store.root.exists()
    )


def test_tables_are_read_back_exactly(store_with_run):
    assert_equal(store_with_run.tables("run-0001"), tables())


def test_empty_tables_are_read_back_exactly(store):
    store.save(finished_record(1), Tables.empty())
    assert_equal(store.tables("run-0001"), Tables.empty())


def test_shapes_are_read_back_as_tuples(store_with_run):
    assert store_with_run.tables("run-0001").layers["shape"].tolist() == [(3, 4), (8, 3, 5, 5)]


def test_columns_added_by_a_panel_are_read_back(store):
    store.save(record(1))
    given = tables()
    given.layers["kept_by_hand"] = [True, False]
    store.save(finished_record(1), given)
    assert_equal(store.tables("run-0001"), given)


def test_finishing_makes_a_run_done_and_dates_it(store):
    store.save(record(1, "running"))
    store.save(record(1, "running"), tables())
    assert (
        store.record("run-0001").status == "done" and store.record("run-0001").finished is not None
    )


def test_the_recipe_in_the_folder_repeats_the_run(store_with_run):
    assert (
        record(1).recipe.from_yaml((store_with_run.folder("run-0001") / "recipe.yaml").read_text())
        == record(1).recipe
    )


@pytest.mark.parametrize("status", ["done", "queued", "running"])
def test_a_run_is_found_by_its_key(store, status):
    store.save(record(1, status), tables() if status == "done" else None)
    assert store.find("key-1") == store.record("run-0001")
    assert store.find("key-1").status == status


# "done" without tables is a damaged folder
@pytest.mark.parametrize("status", ["failed", "cancelled", "interrupted", "done"])
def test_a_run_without_an_answer_is_not_found(store, status):
    store.save(record(1, status))
    assert store.find("key-1") is None


def test_the_newest_of_equal_keys_is_found(store):
    for number in (2, 3, 1):
        store.save(record(number, key="same"))
    assert store.find("same").id == "run-0003"


def test_a_deleted_run_is_removed_everywhere(store_with_run):
    store_with_run.delete("run-0001")
    assert store_with_run.records() == [] and list(store_with_run.folders.iterdir()) == []
    with pytest.raises(PlainError, match="no run run-0001"):
        store_with_run.record("run-0001")


def test_a_run_that_is_not_done_has_no_tables_and_says_why(store):
    store.save(record(1, "running"))
    store.save(record(2, "failed", message="The disk was full; free some space."))
    with pytest.raises(PlainError, match="is running"):
        store.tables("run-0001")
    with pytest.raises(PlainError, match="The disk was full"):
        store.tables("run-0002")


EVIL = [
    "..",
    "../..",
    "../../etc",
    "/etc",
    "a/b-c-d",
    "run",
    "RUN-0001",
    "x" * 41,
    "run-0001\n",
    "",
    "run\x000001",
    "~root",
    "....",
    "été-été",
]


@for_each("run", EVIL)
@for_each(
    "act",
    [Store.record, Store.tables, Store.delete, lambda store, run: save(store, record(1, id=run))],
)
def test_no_id_leads_out_of_the_store(store_with_run, act, run):
    with pytest.raises(PlainError, match="is not a run id"):
        act(store_with_run, run)


def test_a_link_is_deleted_and_what_it_points_to_stays(store_with_run, tmp_path):
    (tmp_path / "precious").mkdir()
    (store_with_run.folders / "link-0001").symlink_to(tmp_path / "precious")
    store_with_run.delete("link-0001")
    assert (tmp_path / "precious").is_dir() and ids(store_with_run.records()) == ["run-0001"]


def test_a_store_without_an_index_says_the_same_and_leaves_no_trace(store_with_run):
    before = store_with_run.records()
    index.erase(store_with_run.index)
    bare = Store(store_with_run.root, indexed=False)
    assert bare.records() == before and bare.find("key-1") == before[0]
    bare.save(record(2))
    bare.rebuild()
    assert ids(bare.records()) == ["run-0002", "run-0001"] and {
        path.name for path in store_with_run.root.iterdir()
    } == {"runs"}


# --- damage ---------------------------------------------------------------------------------------


def truncate(folder):
    (folder / "record.json").write_bytes((folder / "record.json").read_bytes()[:40])


def lose_record(folder):
    (folder / "record.json").unlink()


def bewilder(folder):
    (folder / "record.json").write_bytes(b"\xff\x00[1]")


def swap_record(folder):
    (folder / "record.json").write_text(record(9).model_dump_json())


def become_a_file(folder):
    shutil.rmtree(folder)
    folder.write_text("not a folder")


def become_a_folder(folder):
    lose_record(folder)
    (folder / "record.json").mkdir()


@for_each("damage", [truncate, lose_record, bewilder, swap_record, become_a_file, become_a_folder])
def test_a_damaged_run_is_listed_as_unreadable_and_the_others_stay(tmp_path, damage):
    finished = finished_store(tmp_path)
    finished.save(record(2))
    damage(finished.folder("run-0001"))
    by_id = {run.id: run for run in finished.records()}
    assert by_id["run-0002"] == record(2)
    assert by_id["run-0001"].status == "unreadable" == finished.record("run-0001").status
    assert (
        str(finished.folder("run-0001")) in by_id["run-0001"].message
        and "delete it" in by_id["run-0001"].message
    )
    with pytest.raises(PlainError, match="damaged"):
        finished.tables("run-0001")
    assert finished.find("key-1") is None
    finished.delete("run-0001")
    assert ids(finished.records()) == ["run-0002"]


def test_a_damaged_run_keeps_its_recipe_so_that_it_can_be_repeated(store_with_run):
    truncate(store_with_run.folder("run-0001"))
    assert (
        store_with_run.records()[0].recipe == record(1).recipe
        and "run its recipe again" in store_with_run.records()[0].message
    )


def test_a_repaired_run_is_readable_again(store_with_run):
    path = store_with_run.folder("run-0001") / "record.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    assert store_with_run.records()[0].status == "unreadable"
    path.write_bytes(whole)
    assert (
        store_with_run.records()[0] == store_with_run.record("run-0001")
        and store_with_run.records()[0].status == "done"
    )


def drop(path):
    path.unlink()


def scramble(path):
    path.write_bytes(b"garbage" * 100)


def empty(path):
    path.write_bytes(b"")


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def be_another_table(path):
    pd.DataFrame({"other": [1]}).to_parquet(path)


WAYS = [
    (damage, name)
    for damage in (drop, scramble, empty, halve, be_another_table)
    for name, declared in TABLES.items()
    if damage != drop or declared.required
]


@for_each(("damage", "name"), WAYS)
def test_damaged_tables_are_refused_with_their_file_and_the_way_out(store_with_run, name, damage):
    path = store_with_run.folder("run-0001") / f"{name}.parquet"
    content = path.read_bytes()
    damage(path)
    with pytest.raises(PlainError, match=r"run the recipe again and delete this run\.$") as refused:
        store_with_run.tables("run-0001")
    assert str(path) in str(refused.value) and store_with_run.record("run-0001").status == "done"
    path.write_bytes(content)


def test_no_flipped_bit_gives_another_number(store_with_run):
    path = store_with_run.folder("run-0001") / "layers.parquet"
    whole = path.read_bytes()
    for place in range(0, len(whole), 41):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with suppress(PlainError):
            read = store_with_run.tables("run-0001", ["layers"]).layers
            pd.testing.assert_frame_equal(read, tables().layers, check_exact=True)


def test_files_of_another_version_do_no_harm(store_with_run):
    folder = store_with_run.folder("run-0001")
    (folder / "thoughts.parquet").write_bytes(b"garbage")
    (folder / "layers.csv").write_text("name")
    (store_with_run.folders / ".DS_Store").write_text("")
    (store_with_run.folders / "Thumbs.db").write_text("")
    assert_equal(store_with_run.tables("run-0001"), tables())
    assert ids(store_with_run.records()) == ["run-0001"]


# --- the index ------------------------------------------------------------------------------------


def index_of(store, statement):
    with sqlite3.connect(store.index) as rows:
        found = rows.execute(statement).fetchall()
    rows.close()
    return found


def lose_index(store):
    index.erase(store.index)


def scramble_index(store):
    lose_index(store)
    store.index.write_bytes(b"This is no database. " * 500)


def halve_index(store):
    content = store.index.read_bytes()
    lose_index(store)
    store.index.write_bytes(content[: len(content) // 2])


def age_index(store):
    index_of(store, "PRAGMA user_version = 99")


def reshape_index(store):
    index_of(store, "ALTER TABLE runs RENAME COLUMN stamp TO other")


def empty_index(store):
    index_of(store, "DELETE FROM runs")


def confuse_index(store):
    index_of(store, "UPDATE runs SET record = '{}'")


INDEX_DAMAGE = [
    lose_index,
    scramble_index,
    halve_index,
    age_index,
    reshape_index,
    empty_index,
    confuse_index,
]


@for_each("damage", INDEX_DAMAGE)
def test_the_index_is_made_again_from_the_folders(tmp_path, damage):
    finished = finished_store(tmp_path)
    finished.save(record(2))
    before = finished.records()
    damage(finished)
    assert finished.records() == before
    assert index_of(finished, "SELECT id FROM runs ORDER BY id") == [("run-0001",), ("run-0002",)]
    assert index_of(finished, "PRAGMA journal_mode") == [("wal",)]


@for_each("damage", INDEX_DAMAGE)
def test_writing_survives_a_damaged_index(tmp_path, damage):
    finished = finished_store(tmp_path)
    damage(finished)
    finished.save(record(2))
    finished.save(record(2, "running"))
    finished.delete("run-0001")
    assert finished.records() == [record(2, "running")]


@for_each("column", ["stamp", "status", "label", "model", "techniques", "message", "created"])
def test_an_index_with_a_value_of_another_type_is_made_again(tmp_path, column):
    finished = finished_store(tmp_path)
    before = finished.page(RunQuery())
    index_of(finished, f"UPDATE runs SET {column} = NULL")
    assert finished.page(RunQuery()) == before


def test_an_index_that_cannot_be_opened_changes_nothing_but_the_time(store_with_run):
    before = store_with_run.records()
    lose_index(store_with_run)
    store_with_run.index.mkdir()
    store_with_run.save(record(2))
    assert store_with_run.records() == [record(2), *before]


def test_folders_copied_in_deleted_or_edited_by_hand_are_seen(store_with_run, tmp_path):
    other = Store(tmp_path / "other")
    other.save(record(2))
    shutil.copytree(other.folder("run-0002"), store_with_run.folder("run-0002"))
    assert ids(store_with_run.records()) == ["run-0002", "run-0001"]
    shutil.rmtree(store_with_run.folder("run-0001"))
    (store_with_run.folder("run-0002") / "record.json").write_text(
        record(2, "failed").model_dump_json()
    )
    assert (
        store_with_run.records() == [record(2, "failed")] and store_with_run.find("key-1") is None
    )
    assert index_of(store_with_run, "SELECT id, status FROM runs") == [("run-0002", "failed")]


def test_known_folders_are_not_read_again(store_with_run, monkeypatch):
    store_with_run.records()
    monkeypatch.setattr(
        index, "read_record", lambda folder: pytest.fail(f"{folder} was read again")
    )
    assert ids(store_with_run.records()) == ["run-0001"]


def test_an_unindexed_store_shows_lost_runs_as_interrupted_and_leaves_no_trace(store):
    store.save(record(1, "running", owner="1:1.0"))
    index.erase(store.index)
    path = store.folder("run-0001") / "record.json"
    before = path.read_bytes()
    bare = Store(store.root, indexed=False)
    assert bare.record("run-0001").status == bare.records()[0].status == "interrupted"
    assert bare.page(RunQuery(status="interrupted")).matching == 1 and bare.under_way() is None
    assert path.read_bytes() == before and [path.name for path in store.root.iterdir()] == ["runs"]


def test_rebuilding_removes_files_of_ended_processes_only(store_with_run):
    for name, hours in (
        (".new-run-0002-dead", 2),
        (".gone-run-0003-dead", 2),
        (".new-run-0004-alive", 0),
    ):
        (store_with_run.folders / name).mkdir()
        os.utime(store_with_run.folders / name, (time.time() - hours * 3600,) * 2)
    store_with_run.rebuild()
    assert {path.name for path in store_with_run.folders.iterdir()} == {
        "run-0001",
        ".new-run-0004-alive",
    }


def test_a_thousand_runs_are_listed_in_a_moment(store):
    for number in range(1000):
        run = finished_record(number)
        store.folder(run.id).mkdir(parents=True)
        (store.folder(run.id) / "record.json").write_text(run.model_dump_json())
    store.records()
    start = time.process_time()
    assert len(store.records()) == 1000
    assert time.process_time() - start < 1


# --- many at once ---------------------------------------------------------------------------------


def test_threads_may_share_a_store(store):
    def work(number):
        store.save(record(number, "running"))
        store.records()
        store.save(finished_record(number), tables())
        return store.find(f"key-{number}").status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(24))) == {"done"}
    assert len(store.records()) == 24


WRITER = """
import sys
from pathlib import Path
from engine.results.store.run_query import RunQuery
from engine.results.store.store import Store
from tests.runs import record
store, first = Store(Path(sys.argv[1])), int(sys.argv[2])
for number in range(first, first + 10):
    store.save(record(number))
    store.save(record(number, "cancelled"))
    assert record(number, "cancelled") in store.records()
"""


def in_python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_processes_may_share_a_store(store):
    writers = [in_python(WRITER, store.root, first) for first in (0, 100, 200)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    assert (
        len(store.records())
        == 30
        == len(index_of(store, "SELECT * FROM runs WHERE status = 'cancelled'"))
    )


def test_a_reader_never_meets_half_a_record(store):
    store.save(record(1))
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(
            lambda: [store.save(record(1, message="m" * 5000 * (n % 2))) for n in range(60)]
        )
        while not writing.done():
            assert store.record("run-0001").status == store.records()[0].status == "queued"
        writing.result()


# --- who owns a run -------------------------------------------------------------------------------


def test_this_process_is_alive_and_a_made_up_one_is_not():
    assert is_owner_alive(current_owner())
    assert not any(
        is_owner_alive(name)
        for name in ("", "x", "1", f"{os.getpid()}:1.0", "999999999:1.0", "-1:1.0", f"{10**30}:1.0")
    )


def test_a_process_whose_clock_was_set_a_little_is_still_itself():
    child = in_python("import time; time.sleep(60)")
    started = psutil.Process(child.pid).create_time()
    assert is_owner_alive(f"{child.pid}:{started + 0.5:.2f}") and not is_owner_alive(
        f"{child.pid}:{started - 3600:.2f}"
    )
    child.kill()
    gone = [is_owner_alive(f"{child.pid}:{started:.2f}") for _ in (time.sleep(0.5), child.wait())]
    assert gone[-1] is False


def test_a_run_whose_process_was_killed_is_interrupted_and_says_so(store):
    child = in_python("import time; time.sleep(60)")
    store.save(
        record(1, "running", owner=f"{child.pid}:{psutil.Process(child.pid).create_time():.2f}")
    )
    store.save(record(2, "running"))
    assert store.mark_interrupted() == []
    child.kill()
    child.wait()
    assert ids(store.mark_interrupted()) == ["run-0001"] and store.mark_interrupted() == []
    assert store.record("run-0001").status == "interrupted" and store.record(
        "run-0001"
    ).message.endswith("run its recipe again.")
    assert store.record("run-0002") == record(2, "running")


def test_a_zombie_process_counts_as_ended():
    child = in_python("import time; time.sleep(60)")
    name = f"{child.pid}:{psutil.Process(child.pid).create_time():.2f}"
    child.kill()
    deadline = time.time() + 10
    while is_owner_alive(name) and time.time() < deadline:
        time.sleep(0.02)
    assert not is_owner_alive(name)
    child.wait()


def test_finished_runs_are_never_interrupted(store):
    for number, status in enumerate(("done", "failed", "cancelled", "interrupted")):
        store.save(record(number, status, owner="1:1.0"))
    assert store.mark_interrupted() == []


# --- a disk that refuses --------------------------------------------------------------------------


@pytest.fixture(params=[errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def store_on_failing_disk(request, store_with_run, monkeypatch):
    """A store whose disk takes nothing more."""

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    store_with_run.save(record(2, "running"))
    for name in ("replace", "rename"):
        monkeypatch.setattr(Path, name, refuse)
    return store_with_run


def test_a_failing_disk_gives_a_message_with_folder_reason_and_advice(store_on_failing_disk):
    for write in (
        lambda: save(store_on_failing_disk, record(3)),
        lambda: save(store_on_failing_disk, record(2, "failed")),
        lambda: save(store_on_failing_disk, finished_record(2), tables()),
        lambda: store_on_failing_disk.delete("run-0001"),
    ):
        with pytest.raises(PlainError, match="COMPRESSION_EXPLORER_HOME") as refused:
            write()
        assert str(store_on_failing_disk.root) in str(
            refused.value
        ) and "cannot be written to" in str(refused.value)


def test_a_failing_disk_loses_nothing_and_leaves_no_partial_files(store_on_failing_disk):
    for write in (
        lambda: save(store_on_failing_disk, record(3)),
        lambda: save(store_on_failing_disk, finished_record(2), tables()),
    ):
        with pytest.raises(PlainError):
            write()
    on_disk = Store(store_on_failing_disk.root).records()
    assert on_disk[0] == record(2, "running") and ids(on_disk) == ["run-0002", "run-0001"]
    assert ids(store_on_failing_disk.records()) == ["run-0003", "run-0002", "run-0001"]
    assert_equal(store_on_failing_disk.tables("run-0002"), tables())
    assert {path.name for path in store_on_failing_disk.folder("run-0002").iterdir()} == {
        "record.json",
        "recipe.yaml",
    }
    assert {path.name for path in store_on_failing_disk.folders.iterdir()} == {
        "run-0001",
        "run-0002",
    }


def test_interrupted_runs_are_distinguished_even_on_a_read_only_disk(store_on_failing_disk):
    lost = record(2, "running", owner="1:1.0")
    (store_on_failing_disk.folder("run-0002") / "record.json").write_text(lost.model_dump_json())
    assert ids(store_on_failing_disk.mark_interrupted()) == ["run-0002"]
    assert (
        store_on_failing_disk.record("run-0002").status
        == store_on_failing_disk.records()[0].status
        == "interrupted"
    )
    assert (
        Store(store_on_failing_disk.root).page(RunQuery(status="interrupted")).rows[0].id
        == "run-0002"
    )


def test_runs_that_the_disk_refused_are_kept_with_the_reason_until_it_takes_runs_again(
    store, monkeypatch
):
    with monkeypatch.context() as full:

        def refuse(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        full.setattr(Path, "rename", refuse)
        for error in (store.save(finished_record(1), tables()), store.save(record(2, "running"))):
            assert "no space left on device" in str(error)
        assert store.find("key-1").id == "run-0001" and store.under_way() == "run-0002"
        assert store.record("run-0001").message == f"Not saved, kept until the app stops. {error}"
    assert store.save(record(3, "failed")) is None
    saved = Store(store.root)
    assert ids(saved.records()) == ["run-0003", "run-0001"], "those that are over are saved"
    assert store.record("run-0001") == saved.record("run-0001")
    assert_equal(saved.tables("run-0001"), tables())
    store.delete("run-0002")
    assert ids(store.records()) == ["run-0003", "run-0001"]


def test_a_file_in_place_of_the_store_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for act in (
        lambda store: save(store, record(1)),
        Store.records,
        lambda store: store.record("run-0001"),
        Store.rebuild,
    ):
        store = Store(tmp_path / "file")
        with pytest.raises(PlainError, match="a file has the name of a required folder") as refused:
            act(store)
        assert str(store.root) in str(refused.value)


def mount_tmpfs(path, options):
    return (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )


@pytest.fixture
def small_disk(tmp_path):
    """A real disk of 256 kB."""
    if not shutil.which("mount") or not mount_tmpfs(tmp_path, "size=256k"):
        pytest.skip("mounting needs rights this process lacks")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_full_disk_is_reported_and_stays_readable(small_disk):
    store = Store(small_disk)
    store.save(finished_record(1), tables(*(layer(os.urandom(20).hex()) for _ in range(20))))
    store.save(record(2, "running"))
    with pytest.raises(
        PlainError, match=r"\(no space left on device\); delete runs, free some space"
    ):
        save(
            store, finished_record(2), tables(*(layer(os.urandom(200).hex()) for _ in range(2000)))
        )
    for reader in (store, Store(small_disk)):
        assert ids(reader.records()) == ["run-0002", "run-0001"]
        assert len(reader.tables("run-0001").layers) == 20
    assert Store(small_disk).record("run-0002").status == "running"
    save(store, record(2, "failed", message="The disk is full."))
    assert store.record("run-0002") == Store(small_disk).record("run-0002")
    assert store.record("run-0002").status == "failed"


def test_a_read_only_disk_stays_readable(small_disk):
    store = Store(small_disk)
    store.save(finished_record(1), tables())
    before = store.records()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert store.records() == before and store.find("key-1") == before[0]
    assert_equal(store.tables("run-0001"), tables())
    with pytest.raises(PlainError, match=r"\(read-only file system\); make it writable"):
        save(store, record(2))


def test_home_follows_the_environment_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", "")
    assert home() == Path.home() / ".cache" / "compression-explorer"


def test_the_finished_example_that_comes_along_can_be_read():
    """It has this version's tables: a newer table must be added to it, empty or not."""
    kept = Store(ASSETS / "examples", indexed=False)
    assert kept.record("first-look").status == "done" and not kept.tables("first-look").layers.empty


def test_a_run_of_an_earlier_version_lacks_what_came_later_and_is_read_all_the_same(store_with_run):
    folder = store_with_run.root / "runs" / "run-0001"
    for name, declared in TABLES.items():
        if not declared.required:
            (folder / f"{name}.parquet").unlink()
    levels = parquet.table_from_bytes((folder / "levels.parquet").read_bytes(), LevelRow).drop(
        columns="weights"
    )
    (folder / "levels.parquet").write_bytes(parquet.parquet_bytes(levels))
    layers = parquet.table_from_bytes((folder / "layers.parquet").read_bytes(), LayerRow).drop(
        columns="original_shape"
    )
    (folder / "layers.parquet").write_bytes(parquet.parquet_bytes(layers))
    read = store_with_run.tables("run-0001")
    assert (read.layers.original_shape.map(len) == 0).all() and len(read.layers) == len(layers)
    assert read.latency.empty and list(read.surfaces) == [
        field.name for field in fields(SurfaceRow)
    ]
    assert read.levels.weights.isna().all() and len(read.levels) == len(levels)
