"""Shared server: visitors see all runs, change only their own, and cannot use up all resources."""

import threading

import pytest

from engine import session as sessions
from engine.errors import Cancelled, PlainError
from engine.recipe import Recipe
from engine.results.schema.record import RunRecord
from engine.results.store.store import Store
from engine.session import Session
from engine.session.visitors import visitor_id
from tests.waiting import PATIENCE_SECONDS, wait_for, wait_until_finished

VISITOR, OTHER_VISITOR = visitor_id("mine"), visitor_id("theirs")


class Cluster:
    """Cluster whose runs end when canceled, or by force if they ignore it."""

    alive = True

    def __init__(self):
        self.cancelled, self.stopped, self.deaf = {}, {}, False

    def run_slots(self):
        return 1

    def run(self, recipe, run, keep, hear):
        self.cancelled[run], self.stopped[run] = threading.Event(), threading.Event()
        if self.deaf:
            self.stopped[run].wait(PATIENCE_SECONDS)
            raise PlainError("The process it ran in was killed.")
        self.cancelled[run].wait(PATIENCE_SECONDS)
        raise Cancelled("The run was canceled.")

    def cancel(self, run):
        self.cancelled[run].set()

    def stop(self, run):
        self.stopped[run].set()

    def close(self):
        for event in (*self.cancelled.values(), *self.stopped.values()):
            event.set()


class Link:
    def __init__(self):
        self.made = Cluster()

    def cluster(self):
        return self.made

    def close(self):
        self.made.close()


@pytest.fixture
def shared_server(monkeypatch):
    """Settings of a shared server; returns a function that changes them."""
    monkeypatch.setenv("COMPRESSION_EXPLORER_SHARED", "1")
    return lambda **numbers: [
        monkeypatch.setenv(f"COMPRESSION_EXPLORER_SHARED_{name.upper()}", str(value))
        for name, value in numbers.items()
    ]


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "ClusterConnection", Link)
    session = Session(Store(tmp_path))
    yield session
    session.close()


def recipe(seed: int) -> Recipe:
    return Recipe.from_dict(
        {"model": "bundled:docs-lm", "seed": seed, "steps": [{"technique": "round-to-nearest"}]}
    )


def test_a_visitor_cancels_and_deletes_their_own_runs_and_no_others(session, shared_server):
    run = session.submit(recipe(1), VISITOR)
    wait_for(lambda: run.id in session._link.made.cancelled)
    for visitor in (OTHER_VISITOR, ""):
        assert not session.may_change(run, visitor)
        for change in (session.cancel, session.delete):
            with pytest.raises(PlainError, match="another visitor"):
                change(run.id, visitor)
    assert session.store.record(run.id).status == "running" and session.may_change(run, VISITOR)
    session.cancel(run.id, VISITOR)
    assert wait_until_finished(session, run.id).status == "cancelled"
    with pytest.raises(PlainError, match="another visitor"):
        session.delete(run.id, OTHER_VISITOR)
    session.delete(run.id, VISITOR)
    assert session.store.records() == []


def test_runs_without_a_visitor_cannot_be_changed(session, shared_server):
    old = RunRecord(id="from-a-shell", key="key", recipe=recipe(1), status="failed")
    session.store.save(old)
    for visitor in ("", VISITOR):
        with pytest.raises(PlainError, match="another visitor"):
            session.delete(old.id, visitor)


def test_without_sharing_everyone_may_change_every_run(session, monkeypatch):
    monkeypatch.delenv("COMPRESSION_EXPLORER_SHARED", raising=False)
    run = session.submit(recipe(1))
    assert run.visitor == "" and session.may_change(run)
    wait_for(lambda: run.id in session._link.made.cancelled)
    session.cancel(run.id)
    wait_until_finished(session, run.id)
    session.delete(run.id)


def test_equal_recipes_of_two_visitors_are_one_run(session, shared_server):
    run = session.submit(recipe(1), VISITOR)
    assert session.submit(recipe(1), OTHER_VISITOR).id == run.id
    assert session.store.record(run.id).visitor == VISITOR


def test_each_visitor_has_a_quota_of_active_runs(session, shared_server):
    shared_server(runs=2)
    first, second = session.submit(recipe(1), VISITOR), session.submit(recipe(2), VISITOR)
    with pytest.raises(PlainError, match="You have 2 active runs"):
        session.submit(recipe(3), VISITOR)
    other = session.submit(recipe(3), OTHER_VISITOR)
    session.cancel(second.id, VISITOR)
    third = session.submit(recipe(4), VISITOR)
    assert {session.store.record(run.id).status for run in (first, third, other)} <= {
        "queued",
        "running",
    }


def test_all_visitors_together_have_a_quota(session, shared_server):
    shared_server(runs=5, queue=2)
    session.submit(recipe(1), VISITOR)
    session.submit(recipe(2), OTHER_VISITOR)
    with pytest.raises(PlainError, match="This server has 2 active runs"):
        session.submit(recipe(3), visitor_id("a third"))


def test_there_are_no_quotas_elsewhere(session, monkeypatch):
    monkeypatch.delenv("COMPRESSION_EXPLORER_SHARED", raising=False)
    assert len({session.submit(recipe(seed)).id for seed in range(30)}) == 30


@pytest.mark.parametrize("deaf", [False, True], ids=["stops when asked", "has to be stopped"])
def test_a_run_that_takes_too_long_is_stopped_with_a_message(
    session, shared_server, monkeypatch, deaf
):
    shared_server(seconds=1)
    monkeypatch.setattr(sessions, "GRACE_SECONDS", 0.2)
    session._link.made.deaf = deaf
    run = wait_until_finished(session, session.submit(recipe(1), VISITOR).id)
    assert run.status == "failed" and "stopped after 1 s, the maximum on this server" in run.message
    monkeypatch.setenv("COMPRESSION_EXPLORER_SHARED_SECONDS", "600")
    session._link.made.deaf = False
    again = session.submit(recipe(1), VISITOR)  # the quota is free again
    wait_for(lambda: session.store.record(again.id).status == "running")


def test_a_path_outside_the_folder_is_refused_before_anything_is_queued(
    session, shared_server, tmp_path
):
    with pytest.raises(PlainError, match=r"^task\.text: '/etc/passwd' is a local path"):
        session.submit(
            Recipe.from_dict(
                {
                    "model": "bundled:docs-lm",
                    "task": {"kind": "language-modeling", "text": "/etc/passwd"},
                }
            ),
            VISITOR,
        )
    assert session.store.records() == []
