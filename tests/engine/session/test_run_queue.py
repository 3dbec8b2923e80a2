"""Runs wait for a free place and take it in the order of their submission."""

import threading
from queue import SimpleQueue

from engine.session.run_queue import RunQueue
from tests.waiting import PATIENCE_SECONDS


def test_items_are_taken_in_order_one_at_a_time():
    gate, taken = threading.Event(), SimpleQueue()

    def work(item):
        taken.put(item)
        gate.wait(PATIENCE_SECONDS)

    queue = RunQueue(1, work)
    for item in "abc":
        queue.queue(item)
    assert taken.get(timeout=PATIENCE_SECONDS) == "a" and taken.empty()
    gate.set()
    assert [taken.get(timeout=PATIENCE_SECONDS) for _ in "bc"] == ["b", "c"]


def test_as_many_items_run_at_once_as_there_are_places():
    both = threading.Barrier(2)
    done = SimpleQueue()

    def work(item):
        both.wait(PATIENCE_SECONDS)
        done.put(item)

    queue = RunQueue(2, work)
    for item in "ab":
        queue.queue(item)
    assert {done.get(timeout=PATIENCE_SECONDS) for _ in "ab"} == {"a", "b"}
