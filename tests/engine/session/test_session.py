"""The session: whatever happens to a run or to the machine, the app goes on, nothing finished is
lost, and the card says what to do.

Processes are real, and so is what befalls them.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from engine.errors import PlainError
from engine.queries import ModelQuery, WorkerQuery
from engine.results.schema.record import FINISHED
from engine.results.store.store import Store
from engine.results.store.unfinished import finished_block_count, unfinished_folder
from engine.runtime.platform_support import can_fork_workers
from engine.session import Session
from engine.session.progress import STAGES
from tests.extra_queries import UnansweredQuery, WaitQuery
from tests.waiting import PATIENCE_SECONDS, wait_for, wait_until_finished

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def module_session(home):
    session = Session(Store(home / "results"))
    yield session
    session.close()


@pytest.fixture
def session(module_session):
    """Shared by all tests; every one leaves it idle."""
    yield module_session
    for run in list(module_session._live):
        module_session.cancel(run)
    wait_for(lambda: not module_session._live)


def measuring(session, run):
    """Once the run is in the middle of its work."""
    wait_for(lambda: session.progress(run).done or session.store.record(run).status in FINISHED)
    assert session.store.record(run).status == "running", session.store.record(run).message


def pids(session):
    cluster = session._link.cluster()
    names = wait_for(
        lambda: (
            named
            if len(named := {at: each["name"] for at, each in workers(cluster).items()}) == 3
            else None
        )
    )
    return {names[at]: pid for at, pid in cluster.client.run(os.getpid).items()} | {
        "host": cluster.embedded.process.pid
    }


def workers(cluster):
    return cluster.client.scheduler_info(n_workers=-1)["workers"]


def kill(pid):
    os.kill(pid, signal.SIGKILL)


@contextmanager
def program(script, *arguments, **variables):
    """Python in another process, which says something on standard output and ends with its standard
    input.
    """
    environment = (
        os.environ
        | {"PYTHONPATH": str(ROOT)}
        | {name: str(value) for name, value in variables.items()}
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=environment,
        text=True,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for end in (process.stdin, process.stdout, process.stderr):
            with suppress(OSError):
                end.close()


# --- runs -----------------------------------------------------------------------------------------


def test_a_run_reports_in_order_and_ends_with_its_tables(session, recipe):
    heard, hear = [], session._update_progress
    session._update_progress = lambda run, news: (heard.append(news), hear(run, news))
    try:
        record = session.submit(recipe())
        assert record.status == "queued"
        done = wait_until_finished(session, record.id)
    finally:
        del session._update_progress
    assert done.status == "done" and done.message == "" and done.summary.result.size_bytes > 0
    assert len(session.store.tables(record.id).layers) > 0
    wait_for(lambda: session.progress(record.id).overall == 1.0)
    assert [news.time for news in heard] == sorted(news.time for news in heard)
    assert heard[0].event.stage == "starting" and heard[-1].event.stage == STAGES[-1]
    compressing = [news.event.done for news in heard if news.event.stage == "compressing"]
    assert compressing == sorted(compressing)


def test_the_compressed_model_is_kept_with_its_run_and_has_its_scores(session, recipe):
    asked = recipe()
    run = wait_until_finished(session, session.submit(asked).id)
    kept = session.store.kept_model(run.id)
    assert (
        sum(path.stat().st_size for path in kept.glob("*.safetensors"))
        == run.summary.result.size_bytes
    )
    again = wait_until_finished(
        session, session.submit(asked.model_copy(update={"model": str(kept), "steps": ()})).id
    ).summary.result
    assert again.perplexity == run.summary.result.perplexity
    session.delete(run.id)
    assert session.store.kept_model(run.id) is None and not kept.exists()


def test_the_same_recipe_submitted_twice_at_once_is_one_run(session, recipe):
    asked = recipe(slow=True)
    with ThreadPoolExecutor(8) as browsers:
        runs = set(browsers.map(lambda _: session.submit(asked).id, range(8)))
    assert len(runs) == 1
    session.cancel(runs.pop())


def test_a_finished_run_is_not_repeated(session, recipe):
    asked = recipe()
    first = wait_until_finished(session, session.submit(asked).id)
    assert session.submit(asked).id == first.id
    session.delete(first.id)
    assert session.submit(asked).id != first.id


def test_runs_of_two_browsers_take_turns_and_both_end(session, recipe):
    with ThreadPoolExecutor(2) as browsers:
        runs = list(browsers.map(lambda _: session.submit(recipe()).id, range(2)))
    assert [wait_until_finished(session, run).status for run in runs] == ["done", "done"]


@pytest.mark.skipif(
    not can_fork_workers(),
    reason="each worker is started by itself here",
)
def test_workers_and_their_replacements_are_forked_from_one_process(session):
    def parents() -> set[int]:
        return {psutil.Process(pid).ppid() for name, pid in pids(session).items() if name != "host"}

    def lives_at() -> str | None:
        return next(
            (
                at
                for at, each in workers(session._link.cluster()).items()
                if each["name"] == "ask-1"
            ),
            None,
        )

    ready, before = parents(), lives_at()
    assert len(ready) == 1 and "forkserver" in " ".join(psutil.Process(*ready).cmdline())
    kill(pids(session)["ask-1"])
    wait_for(lambda: lives_at() not in (None, before))
    assert parents() == ready


def test_a_run_outlives_the_browser_that_submitted_it(session, recipe):
    run = []
    browser = threading.Thread(target=lambda: run.append(session.submit(recipe()).id))
    browser.start()
    browser.join()
    assert wait_until_finished(session, run[0]).status == "done"


def test_a_waiting_run_is_canceled_immediately_and_never_starts(session, recipe):
    first, second = session.submit(recipe(slow=True)), session.submit(recipe())
    session.cancel(second.id)
    cancelled = session.store.record(second.id)
    assert cancelled.status == "cancelled" and "while it waited" in cancelled.message
    session.cancel(first.id)
    wait_until_finished(session, first.id)
    third = session.submit(recipe())
    assert wait_until_finished(session, third.id).status == "done"
    assert session.store.record(second.id) == cancelled


def test_a_running_run_stops_when_cancelled(session, recipe):
    run = session.submit(recipe(slow=True)).id
    measuring(session, run)
    with pytest.raises(PlainError, match="cancel it first"):
        session.delete(run)
    session.cancel(run)  # about a second on an idle machine; the run itself would take minutes
    record = wait_until_finished(session, run)
    assert record.status == "cancelled" and "canceled" in record.message and record.finished
    session.cancel(run)  # once more does no harm
    assert session.store.record(run) == record
    session.delete(run)
    assert run not in [each.id for each in session.store.records()]


def test_a_canceled_training_streams_its_curve_and_keeps_its_best_checkpoint(session, recipe, home):
    task = {
        "kind": "language-modeling",
        "text": str(home / "text.txt"),
        "context": 16,
        "tokens": 256,
    }
    calibration = {"text": str(home / "text.txt"), "context": 16}
    run = session.submit(
        recipe(
            task=task,
            calibration=calibration,
            steps=[{"technique": "distill", "steps": 100_000, "batch": 2}],
        )
    ).id
    wait_for(
        lambda: (
            len({row.step for row in session.progress(run).curves}) > 3
            or session.store.record(run).status in FINISHED
        )
    )
    seen = session.progress(run).curves
    wait_for(lambda: session.progress(run).curves[-1].step > seen[-1].step)
    session.cancel(run)
    record = wait_until_finished(session, run)
    assert record.status == "done" and record.summary.ended_early, record.message
    whole = session.store.tables(run).curves
    assert {(row.step, row.name, row.value) for row in seen} <= set(
        whole[["step", "name", "value"]].itertuples(index=False, name=None)
    )
    measured = session.submit(
        record.recipe.model_copy(
            update={"model": str(session.store.kept_model(run)), "steps": (), "calibration": None}
        )
    ).id
    assert (
        wait_until_finished(session, measured).summary.result.perplexity
        == record.summary.result.perplexity
    ), "the best state is a model like any other"
    again = session.submit(record.recipe).id
    assert again != run, "a run that was ended early is no answer to its recipe"


def test_a_run_can_be_canceled_immediately_after_submission(session, recipe):
    for pause in (0, 0.005, 0.02, 0.1):
        run = session.submit(recipe(slow=True)).id
        time.sleep(pause)
        session.cancel(run)
        assert wait_until_finished(session, run).status == "cancelled"


def test_a_recipe_that_cannot_run_fails_with_its_own_message(session, recipe):
    with pytest.raises(PlainError, match="no bundled model"):
        session.submit(recipe(model="bundled:nothing"))
    failed = wait_until_finished(
        session,
        session.submit(recipe(task={"kind": "image-classification", "data": "bundled:digits"})).id,
    )
    assert failed.status == "failed" and "task" in failed.message and failed.summary is None


# --- questions ------------------------------------------------------------------------------------


def test_questions_are_answered_during_a_run(session, recipe, home):
    run = session.submit(recipe(slow=True)).id
    measuring(session, run)
    assert session.ask(ModelQuery(str(home / "model")), PATIENCE_SECONDS).parameters > 0
    assert session.store.record(run).status == "running"


@pytest.mark.parametrize("query", [ModelQuery("bundled:nothing"), UnansweredQuery()])
def test_a_question_without_answer_gives_a_sentence(session, query):
    with pytest.raises(PlainError, match=r"^[A-Z].*\.$"):
        session.ask(query, PATIENCE_SECONDS)


def test_a_question_that_takes_too_long_gives_a_sentence(session):
    with pytest.raises(PlainError, match="No answer within 0.0 s"):
        session.ask(WorkerQuery(), timeout=0.0001)


def test_questions_are_answered_after_their_worker_was_killed(session):
    before = session.ask(WorkerQuery(), PATIENCE_SECONDS).pid
    kill(before)
    with suppress(PlainError):  # asked of the dying worker
        session.ask(WorkerQuery(), PATIENCE_SECONDS)
    assert session.ask(WorkerQuery(), PATIENCE_SECONDS).pid != before


def test_slow_questions_of_visitors_do_not_delay_another_visitor(session, tmp_path):
    """More slow questions than workers that always run: spare ones start."""
    end = tmp_path / "end"
    with ThreadPoolExecutor(4) as visitors:
        slow = [
            visitors.submit(session.ask, WaitQuery(str(end), number), PATIENCE_SECONDS, number)
            for number in range(4)
        ]
        try:
            assert session.ask(WorkerQuery(), PATIENCE_SECONDS, "another").pid
            assert not any(each.done() for each in slow)
        finally:
            end.touch()
        assert [each.result() for each in slow] == ["done"] * 4


def test_questions_that_take_too_long_are_stopped_and_the_next_one_is_answered_by_another_process(
    session, tmp_path
):
    """There are as many slow questions as workers."""
    before = pids(session)
    with ThreadPoolExecutor(2) as visitors:
        stuck = [
            visitors.submit(session.ask, WaitQuery(str(tmp_path / "never"), visitor), 5, visitor)
            for visitor in (1, 2)
        ]
        for each in stuck:
            with pytest.raises(
                PlainError,
                match=(
                    "No answer within 5 s: the question takes longer, and its process was restarted"
                ),
            ):
                each.result()
    assert session.ask(WorkerQuery(), PATIENCE_SECONDS).pid not in before.values()


# --- what befalls processes -----------------------------------------------------------------------


def test_a_killed_worker_fails_only_its_run(session, recipe):
    finished = wait_until_finished(session, session.submit(recipe()).id)
    run, waiting = session.submit(recipe(slow=True)).id, session.submit(recipe()).id
    measuring(session, run)
    kill(pids(session)["run"])
    failed = wait_until_finished(session, run)
    assert (
        failed.status == "failed"
        and "was killed" in failed.message
        and "run it again" in failed.message
    )
    assert wait_until_finished(session, waiting).status == "done"
    assert session.store.record(finished.id) == finished and len(
        session.store.tables(finished.id).layers
    )
    again = session.submit(failed.recipe)
    assert again.id != run
    session.cancel(again.id)


def test_a_killed_gptq_run_keeps_finished_blocks_and_resumes(session, recipe, home):
    text = str(home / "text.txt")
    shown = {"text": text, "samples": 100, "context": 32}
    asked, worker = (
        recipe(steps=[{"technique": "gptq", "group_size": 4}], calibration=shown),
        pids(session)["run"],
    )
    run = session.submit(asked).id
    wait_for(
        lambda: finished_block_count(asked.key()) or session.store.record(run).status in FINISHED
    )
    kill(worker)
    failed = wait_until_finished(session, run)
    assert failed.status == "failed" and session.has_finished_blocks(failed)
    again = wait_until_finished(session, session.submit(asked).id)
    assert (
        again.status == "done"
        and "finished by an earlier run" in again.summary.notes[-1]
        and not session.has_finished_blocks(again)
    )


def test_deleting_a_run_deletes_its_unfinished_blocks(session, recipe):
    record = wait_until_finished(session, session.submit(recipe(model="no/such-model-here")).id)
    folder = unfinished_folder(record.key, "somewhere")
    (folder / "block-00001").mkdir(parents=True)
    assert session.has_finished_blocks(record)
    session.delete(record.id)
    assert not session.has_finished_blocks(record) and not folder.exists()


def test_a_lost_scheduler_fails_the_run_and_a_new_one_is_started(session, recipe):
    run = session.submit(recipe(slow=True)).id
    measuring(session, run)
    before = pids(session)
    kill(before["host"])
    failed = wait_until_finished(session, run)
    assert failed.status == "failed" and "background processes were lost" in failed.message
    assert session.ask(WorkerQuery(), PATIENCE_SECONDS).pid not in before.values()
    assert wait_until_finished(session, session.submit(recipe()).id).status == "done"
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in before.values()))


OWNER = """
import sys, time
from engine.recipe import Recipe
from engine.results.store.store import Store
from engine.session import Session

session = Session(Store(sys.argv[1]))
run = session.submit(Recipe.from_yaml(sys.stdin.readline().encode().decode("unicode_escape"))).id
while not session.progress(run).done:
    time.sleep(0.02)
print(run, flush=True)
sys.stdin.read()
"""


@contextmanager
def owner(store, asked, temporary):
    """A program in the middle of a run, and the ids of all its processes."""
    temporary.mkdir()
    with program(OWNER, store, TMPDIR=temporary) as process:
        process.stdin.write(asked.to_yaml().encode("unicode_escape").decode() + "\n")
        process.stdin.flush()
        run = process.stdout.readline().strip()
        assert run, process.stderr.read()
        yield (
            process,
            run,
            [child.pid for child in psutil.Process(process.pid).children(recursive=True)],
        )


def test_a_restarted_server_finds_the_run_interrupted_and_no_processes_left(
    session, recipe, tmp_path
):
    asked = recipe(slow=True)
    with owner(session.store.root, asked, tmp_path / "temporary") as (process, run, children):
        assert len(children) >= 3
        again = Session(Store(session.store.root))  # an app and a shell on one store
        try:
            assert again.store.record(run).status == session.store.record(run).status == "running"
            assert (
                session.submit(asked).id == run
                and "another program" in session.progress(run).sentence()
            )
            with pytest.raises(PlainError, match="another program"):
                session.cancel(run)
        finally:
            again.close()
        process.kill()
        process.wait()
        # within a second or two
        wait_for(lambda: not any(psutil.pid_exists(pid) for pid in children))
        assert list((tmp_path / "temporary").iterdir()) == []
    lost = session.store.record(run)
    assert lost.status == "interrupted" and "run its recipe again" in lost.message
    restarted = session.submit(asked)
    assert restarted.id != run
    session.cancel(restarted.id)


def test_a_program_that_ends_during_a_run_leaves_no_processes_or_files(session, recipe, tmp_path):
    with owner(session.store.root, recipe(slow=True), tmp_path / "temporary") as (
        process,
        run,
        children,
    ):
        process.stdin.close()
        process.wait(PATIENCE_SECONDS)
        assert process.stderr.read() == ""
        # within a second or two
        wait_for(lambda: not any(psutil.pid_exists(pid) for pid in children))
        assert list((tmp_path / "temporary").iterdir()) == []
    assert session.store.record(run).status == "interrupted"


QUIET = """
import os, sys, time
from engine.queries import ModelQuery
from engine.recipe import Recipe
from engine.results.store.store import Store
from engine.session import Session

assert "distributed" not in sys.modules, "importing the session is to be quick"
session = Session(Store(sys.argv[1]))
assert session.ask(ModelQuery(sys.argv[2]), 600).parameters
run = session.submit(Recipe.from_yaml(open(sys.argv[3]).read())).id
while session.store.record(run).status in ("queued", "running"):
    time.sleep(0.02)
assert len(session.store.tables(run).layers), session.store.record(run).message
assert not {"torch", "transformers", "streamlit", "engine.interactive"} & set(sys.modules)
"""


def test_a_session_prints_nothing_leaves_no_files_and_imports_no_torch(recipe, home, tmp_path):
    (tmp_path / "recipe.yaml").write_text(recipe().to_yaml())
    (tmp_path / "temporary").mkdir()
    (tmp_path / "here").mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            QUIET,
            tmp_path / "results",
            home / "model",
            tmp_path / "recipe.yaml",
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary")},
        cwd=tmp_path / "here",
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list((tmp_path / "here").iterdir()) == list((tmp_path / "temporary").iterdir()) == []


# --- what befalls the store -----------------------------------------------------------------------


def mount(*arguments):
    return (
        subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False).returncode
        == 0
    )


@pytest.fixture
def disk(tmp_path):
    """A disk of our own, to be filled up or made read-only."""
    (tmp_path / "disk").mkdir()
    if not (
        shutil.which("mount") and mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path / "disk")
    ):
        pytest.skip("mounting needs rights this process lacks")
    yield tmp_path / "disk"
    subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True)


@contextmanager
def kept_in(session, root):
    """The session with another store, so that its processes need not be started again."""
    before, session.store = session.store, Store(root)
    try:
        yield session
        wait_for(lambda: not session._live)
    finally:
        session.store = before


def fill(disk):
    with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_store_that_cannot_be_written_loses_no_result(session, recipe, tmp_path):
    (tmp_path / "results").write_text("a file where a folder should be")
    with kept_in(session, tmp_path / "results"):
        asked = recipe()
        done = wait_until_finished(session, session.submit(asked).id)
        assert (
            done.status == "done"
            and "Not saved" in done.message
            and "COMPRESSION_EXPLORER_HOME" in done.message
        )
        assert len(session.store.tables(done.id).layers) and session.submit(asked).id == done.id
        assert [each.id for each in session.store.records()] == [done.id]
        (tmp_path / "results").unlink()
        second = wait_until_finished(
            session, session.submit(recipe()).id
        )  # mended: the store takes both
        assert {
            each.id for each in Store(tmp_path / "results").records() if each.status == "done"
        } == {done.id, second.id}
        assert session.store.record(done.id).message == second.message == ""


def test_a_disk_that_fills_up_during_a_run_loses_no_result(session, recipe, disk):
    with kept_in(session, disk / "results"):
        saved = wait_until_finished(session, session.submit(recipe()).id)
        waiting = session.submit(recipe(slow=True)).id
        measuring(session, waiting)
        run = session.submit(recipe()).id
        fill(disk)
        session.cancel(waiting)
        assert wait_until_finished(session, waiting).status == "cancelled"
        done = wait_until_finished(session, run)
        assert (
            done.status == "done"
            and "no space left on device" in done.message
            and "free some space" in done.message
        )
        assert len(session.store.tables(run).layers) and len(session.store.tables(saved.id).layers)
        (disk / "ballast").unlink()
        session.delete(run)
        assert run not in [each.id for each in session.store.records()]


def test_a_disk_that_becomes_read_only_loses_no_result(session, recipe, disk):
    with kept_in(session, disk / "results"):
        saved = wait_until_finished(session, session.submit(recipe()).id)
        assert mount("-o", "remount,ro", disk)
        done = wait_until_finished(session, session.submit(recipe()).id)
        assert done.status == "done" and "read-only" in done.message
        assert [each.id for each in session.store.records()] == [done.id, saved.id]
        assert len(session.store.tables(done.id).layers) and len(
            session.store.tables(saved.id).layers
        )
        with pytest.raises(PlainError, match="read-only"):
            session.delete(saved.id)


@pytest.mark.parametrize("file", ["record.json", "layers.parquet"])
def test_a_damaged_run_gives_a_message_and_can_be_run_again(session, recipe, tmp_path, file):
    with kept_in(session, tmp_path / "results"):
        asked = recipe()
        run, other = session.submit(asked).id, session.submit(recipe()).id
        assert {
            wait_until_finished(session, run).status,
            wait_until_finished(session, other).status,
        } == {"done"}
        path = next((tmp_path / "results" / "runs" / run).rglob(file))
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(PlainError, match="damaged"):
            session.store.tables(run)
        assert {each.id for each in session.store.records()} == {run, other}
        assert wait_until_finished(session, session.submit(asked).id).status == "done"
        session.delete(run)
