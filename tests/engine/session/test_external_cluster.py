"""External clusters: the page shows what delays a run, and a run that cannot continue ends with a
message.
"""

import threading
import time
from contextlib import suppress
from dataclasses import replace

import psutil
import pytest
from distributed import Client

from engine.errors import Cancelled, PlainError
from engine.events import Message, ProgressEvent, WorkerEvent
from engine.queries import ModelQuery, WorkerQuery
from engine.results.store.store import Store
from engine.session import Session
from engine.session import cluster as clusters
from engine.session import external_cluster as named
from engine.session.cluster import Cluster
from engine.session.external_cluster import (
    LOST_SECONDS,
    SILENT_SECONDS,
    RunWatch,
    busy,
    offering,
    status,
)
from tests.cases import for_each
from tests.clusters import (
    dask_process,
    dask_scheduler,
    dask_worker,
    occupied_until,
    run_until_cancelled,
)
from tests.extra_queries import DurationQuery
from tests.waiting import PATIENCE_SECONDS, wait_for, wait_until_finished

COMPRESSING = ProgressEvent("compressing", 6, 30)
NONE = WorkerEvent("waiting-for-worker", cause="waiting")
BUSY = WorkerEvent("waiting-for-worker", cause="waiting", workers=1, busy=1)
GONE = WorkerEvent("waiting-for-worker", cause="lost")
HERE = Message(COMPRESSING, 0.0, worker="tcp://here")

QUESTION = ("ask", "the question")  # required resource, and its description


def worker(executing=0, nthreads=1, last_seen=0.0, **resources):
    counts = {"executing": executing} if executing else {}
    return {
        "nthreads": nthreads,
        "resources": resources,
        "last_seen": last_seen,
        "metrics": {"task_counts": counts},
    }


# --- messages ----------------------------------------------------------------------------------


def test_a_worker_is_busy_when_all_its_threads_are():
    assert busy(worker(executing=1)) and busy(worker(executing=2, nthreads=2))
    assert not busy(worker()) and not busy(worker(executing=1, nthreads=2)) and not busy({})


@for_each(
    "workers, words",
    [
        ({}, "Waiting for a worker: no worker is connected to the cluster"),
        ({"a": worker(1)}, "its only worker is busy"),
        ({"a": worker(1), "b": worker(1)}, "all 2 workers are busy"),
        ({"a": worker(1), "b": worker(), "c": worker()}, "1 of 3 workers are busy"),
    ],
)
def test_the_message_counts_connected_and_busy_workers(workers, words):
    assert words in RunWatch().delay(workers).title


def test_only_workers_that_offer_a_resource_count_where_any_does():
    with_it, without = worker(run=1), worker()
    assert offering([with_it, without], "run") == [with_it]
    assert offering([with_it, without], "ask") == [with_it, without]


def test_a_run_on_a_responsive_worker_has_no_message():
    watch = RunWatch()
    assert watch.delay({}) == NONE
    watch.hear(HERE)
    assert watch.on_worker
    assert watch.delay({"tcp://here": worker(1, last_seen=1.0)}, now=10.0) is None


def test_a_worker_is_silent_while_its_heartbeat_does_not_change():
    watch = RunWatch()
    watch.hear(HERE)
    delays = [
        watch.delay({"tcp://here": worker(1, last_seen=beat)}, now)
        for beat, now in ((5.0, 0.0), (5.0, SILENT_SECONDS + 1.0), (6.0, 99.0))
    ]
    assert delays[0] is delays[2] is None
    assert delays[1].title == f"No signal from the worker for {SILENT_SECONDS + 1} s"


def test_a_lost_run_waits_for_another_worker_and_fails_when_none_comes():
    watch = RunWatch()
    watch.hear(replace(HERE, worker="tcp://lost"))
    assert watch.delay({}, 0.0) == watch.delay({}, LOST_SECONDS - 1) == GONE and not watch.on_worker
    assert watch.delay({"tcp://other": worker()}, LOST_SECONDS + 5).cause == "restarting"
    # that one is lost too, so the wait starts again
    assert watch.delay({}, LOST_SECONDS + 6) == GONE
    with pytest.raises(
        PlainError, match=r"tcp://lost.*was lost.*start a worker and run it again\.$"
    ):
        watch.delay({}, 2 * LOST_SECONDS + 6)
    watch.hear(replace(HERE, worker="tcp://other"))
    assert watch.on_worker and watch.delay({"tcp://other": worker(1)}, 3 * LOST_SECONDS) is None


# --- real processes ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def address(folder):
    with dask_scheduler(folder) as address:
        yield address


@pytest.fixture
def cluster(address, monkeypatch):
    monkeypatch.setattr(clusters, "run_recipe", run_until_cancelled)
    monkeypatch.setattr(clusters, "WATCH_SECONDS", 0.2)
    cluster = Cluster(named.client_of(address))
    yield cluster
    cluster.close()


class Run:
    """Run in a thread, with its messages."""

    def __init__(self, cluster, name):
        self.name, self.cluster, self.events, self.end = name, cluster, [], None
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self):
        try:
            self.cluster.run({}, self.name, "", lambda message: self.events.append(message.event))
        except PlainError as error:
            self.end = error

    def says(self, event):
        """Wait until the run sends an event (again)."""
        wait_for(lambda: event in self.events or self.end)
        assert event in self.events, self.end
        del self.events[: self.events.index(event) + 1]

    def wait_for_end(self):
        wait_for(lambda: not self.thread.is_alive())
        return self.end


def test_a_run_shows_what_it_waits_for_and_restarts_after_its_worker_is_lost(
    cluster, address, folder, monkeypatch
):
    run = Run(cluster, "waits")
    run.says(NONE)
    with dask_worker(folder, address):
        run.says(COMPRESSING)
    run.says(GONE)
    with dask_worker(folder, address):
        run.says(COMPRESSING)
        cluster.cancel("waits")
        assert isinstance(run.wait_for_end(), Cancelled)


def test_a_run_whose_worker_does_not_return_fails_with_a_message(
    cluster, address, folder, monkeypatch
):
    monkeypatch.setattr(named, "LOST_SECONDS", 1.0)
    with dask_worker(folder, address):
        run = Run(cluster, "lost")
        run.says(COMPRESSING)
    assert "was lost, and no other connected" in str(run.wait_for_end()) and not isinstance(
        run.end, Cancelled
    )


def test_runs_and_questions_report_busy_workers_and_a_waiting_run_can_be_canceled(
    cluster, address, folder, tmp_path
):
    done = tmp_path / "done"
    with dask_worker(folder, address) as process, Client(address, set_as_default=False) as other:
        theirs = other.submit(occupied_until, str(done))
        wait_for(lambda: "is busy" in status(address))  # before the run can take the worker
        run = Run(cluster, "busy")
        run.says(BUSY)
        with pytest.raises(
            PlainError, match="No answer within 0.1 s: its only worker is busy with other work"
        ):
            cluster.ask(DurationQuery(1), 0.1, *QUESTION)
        assert status(address) == "The cluster answers; its only worker is busy with other work."
        cluster.cancel("busy")
        assert isinstance(run.wait_for_end(), Cancelled) and "waited for a worker" in str(run.end)
        done.touch()
        theirs.result()
        assert cluster.ask(DurationQuery(61), 300, *QUESTION) == "1 min 1 s"
        assert process.poll() is None


def test_a_question_without_workers_says_so(cluster):
    wait_for(lambda: not cluster._workers())
    with pytest.raises(PlainError, match="no worker is connected to the cluster"):
        cluster.ask(DurationQuery(1), 0.1, *QUESTION)


def test_a_lost_external_cluster_is_named_in_the_message(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "run_recipe", run_until_cancelled)
    with dask_scheduler(tmp_path) as address:
        cluster = Cluster(named.client_of(address))
        run = Run(cluster, "gone")
        time.sleep(0.1)
    assert address in str(run.wait_for_end()) and "check that its scheduler runs" in str(run.end)
    with suppress(Exception):
        cluster.close()


# --- sessions on them --------------------------------------------------------------------------


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    """Address of a scheduler, set in DASK_SCHEDULER_ADDRESS too."""
    with dask_scheduler(tmp_path) as address:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
        yield address


@pytest.mark.parametrize(
    "resources", [[], ["--resources", "run=1 ask=1"]], ids=["any worker", "named resources"]
)
def test_an_external_cluster_takes_runs_and_questions(scheduler, recipe, home, tmp_path, resources):
    with dask_process(
        tmp_path,
        "worker",
        scheduler,
        "--nthreads",
        1,
        "--no-dashboard",
        "--local-directory",
        tmp_path,
        *resources,
    ) as worker:
        session = Session(Store(tmp_path / "results"))
        try:
            pid = session.ask(WorkerQuery(), PATIENCE_SECONDS).pid
            assert pid in [
                child.pid for child in psutil.Process(worker.pid).children(recursive=True)
            ]
            assert wait_until_finished(session, session.submit(recipe()).id).status == "done"
        finally:
            session.close()
        assert worker.poll() is None  # it is not ours to stop


def test_a_cluster_that_does_not_answer_gives_a_message_until_it_does(
    tmp_path, recipe, home, monkeypatch
):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:9")
    session = Session(Store(tmp_path / "results"))  # says nothing yet
    try:
        for question in (lambda: session.submit(recipe()), lambda: session.ask(WorkerQuery())):
            with pytest.raises(
                PlainError, match=r"No cluster answers at 'tcp://127.0.0.1:9'.*unset the variable"
            ):
                question()
        assert session.store.records() == []
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "no address: at all")
        with pytest.raises(PlainError, match="No cluster answers"):
            session.submit(recipe())
        monkeypatch.delenv("DASK_SCHEDULER_ADDRESS")
        assert session.ask(ModelQuery(str(home / "model")), PATIENCE_SECONDS).parameters
    finally:
        session.close()
