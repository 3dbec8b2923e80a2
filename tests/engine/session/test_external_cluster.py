"""External clusters: the page shows what delays a run, and a run that cannot continue ends with a
message.
"""

import threading
import time
from contextlib import suppress

import pytest
from distributed import Client

from engine.errors import Cancelled, PlainError
from engine.session import cluster as clusters
from engine.session import external_cluster as named
from engine.session.cluster import Cluster
from engine.session.external_cluster import (
    LOST_SECONDS,
    SILENT_SECONDS,
    RunWatch,
    busy,
    occupation,
    offering,
    status,
)
from tests.cases import for_each
from tests.clusters import dask_scheduler, dask_worker, occupied_until, run_until_cancelled
from tests.waiting import wait_for

COMPRESSING, NONE = "Compressing", "Waiting for a worker: no worker is connected to the cluster"
BUSY = "Waiting for a worker: its only worker is busy with other work"
GONE = "The worker was lost, and no other is connected; waiting for one"

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
        ([], "no worker is connected"),
        ([worker(1)], "its only worker is busy"),
        ([worker(1), worker(1)], "all 2 workers are busy"),
        ([worker(1), worker(), worker()], "1 of 3 workers are busy"),
    ],
)
def test_what_the_workers_do_is_said_in_numbers(workers, words):
    assert words in occupation(workers)


def test_only_workers_that_offer_a_resource_count_where_any_does():
    with_it, without = worker(run=1), worker()
    assert offering([with_it, without], "run") == [with_it]
    assert offering([with_it, without], "ask") == [with_it, without]


def test_a_run_on_a_responsive_worker_has_no_message():
    watch = RunWatch()
    assert watch.state({}) == NONE
    watch.hear({"worker": "tcp://here"})
    assert watch.on_worker and watch.state({"tcp://here": worker(1, last_seen=1.0)}, now=10.0) == ""


def test_a_worker_is_silent_while_its_heartbeat_does_not_change():
    watch = RunWatch()
    watch.hear({"worker": "tcp://here"})
    states = [
        watch.state({"tcp://here": worker(1, last_seen=beat)}, now)
        for beat, now in ((5.0, 0.0), (5.0, SILENT_SECONDS + 1.0), (6.0, 99.0))
    ]
    assert (
        states[0] == states[2] == ""
        and states[1] == f"No signal from the worker for {SILENT_SECONDS + 1} s"
    )


def test_a_lost_run_waits_for_another_worker_and_fails_when_none_comes():
    watch = RunWatch()
    watch.hear({"worker": "tcp://lost"})
    assert watch.state({}, 0.0) == watch.state({}, LOST_SECONDS - 1) == GONE and not watch.on_worker
    assert "restart on another" in watch.state({"tcp://other": worker()}, LOST_SECONDS + 5)
    # that one is lost too, so the wait starts again
    assert watch.state({}, LOST_SECONDS + 6) == GONE
    with pytest.raises(
        PlainError, match=r"tcp://lost.*was lost.*start a worker and run it again\.$"
    ):
        watch.state({}, 2 * LOST_SECONDS + 6)
    watch.hear({"worker": "tcp://other"})
    assert watch.on_worker and watch.state({"tcp://other": worker(1)}, 3 * LOST_SECONDS) == ""


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
        self.name, self.cluster, self.stages, self.end = name, cluster, [], None
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self):
        try:
            self.cluster.run({}, self.name, "", lambda news: self.stages.append(news["stage"]))
        except PlainError as error:
            self.end = error

    def says(self, stage):
        """Wait until the run sends a message (again)."""
        wait_for(lambda: stage in self.stages or self.end)
        assert stage in self.stages, self.end
        del self.stages[: self.stages.index(stage) + 1]

    def ended(self):
        wait_for(lambda: not self.thread.is_alive())
        return self.end


def test_a_run_says_what_it_waits_for_and_starts_again_when_its_worker_was_lost(
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
        assert isinstance(run.ended(), Cancelled)


def test_a_run_whose_worker_does_not_come_back_fails_with_a_sentence(
    cluster, address, folder, monkeypatch
):
    monkeypatch.setattr(named, "LOST_SECONDS", 1.0)
    with dask_worker(folder, address):
        run = Run(cluster, "lost")
        run.says(COMPRESSING)
    assert "was lost, and no other connected" in str(run.ended()) and not isinstance(
        run.end, Cancelled
    )


def test_a_run_and_a_question_say_that_all_workers_are_busy_and_the_run_can_be_cancelled_meanwhile(
    cluster, address, folder, tmp_path
):
    done = tmp_path / "done"
    with dask_worker(folder, address) as process, Client(address, set_as_default=False) as other:
        theirs = other.submit(occupied_until, str(done))
        wait_for(lambda: "is busy" in status(address))  # before the run can take the worker
        run = Run(cluster, "busy")
        run.says(BUSY)
        with pytest.raises(
            PlainError, match="No answer within 0 seconds: its only worker is busy with other work"
        ):
            cluster.ask("engine.session.progress:duration", {"seconds": 1}, 0.1, *QUESTION)
        assert status(address) == "The cluster answers; its only worker is busy with other work."
        cluster.cancel("busy")
        assert isinstance(run.ended(), Cancelled) and "waited for a worker" in str(run.end)
        done.touch()
        theirs.result()
        assert (
            cluster.ask("engine.session.progress:duration", {"seconds": 61}, 300, *QUESTION)
            == "1 min 1 s"
        )
        assert process.poll() is None


def test_a_question_without_workers_says_so(cluster):
    wait_for(lambda: not cluster._workers())
    with pytest.raises(PlainError, match="no worker is connected to the cluster"):
        cluster.ask("engine.session.progress:duration", {"seconds": 1}, 0.1, *QUESTION)


def test_a_lost_external_cluster_is_named_in_the_message(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "run_recipe", run_until_cancelled)
    with dask_scheduler(tmp_path) as address:
        cluster = Cluster(named.client_of(address))
        run = Run(cluster, "gone")
        time.sleep(0.1)
    assert address in str(run.ended()) and "check that its scheduler runs" in str(run.end)
    with suppress(Exception):
        cluster.close()
