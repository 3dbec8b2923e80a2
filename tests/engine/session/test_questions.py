"""Queue of questions: equal questions are merged, outdated ones dropped, and abandoned ones do not
block others.

A fake cluster replaces the workers; ``test_session.py`` uses real ones.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from engine.errors import PlainError
from engine.queries import ExplanationQuery, Query, WhatIfQuery
from engine.recipe import Recipe
from engine.session import questions
from engine.session.questions import Overtaken, Questions, query_key
from tests.waiting import PATIENCE_SECONDS, wait_for


@dataclass(frozen=True)
class AnyQuery(Query):
    """A question that is its own answer."""

    model: str
    layer: str = ""
    bits: int = 4
    padding: str = ""
    wrong: bool = False

    @property
    def about(self):
        return self.model, self.layer


class Workers:
    """Cluster that returns the question after a gate is opened."""

    def __init__(self, slots: int = 1, spare: int = 0):
        self.slots = tuple(f"ask-{number}" for number in range(slots))
        self.spare = tuple(f"spare-{number}" for number in range(spare))
        self.running: list[str] = []  # spare workers
        self.ended: list[str] = []
        self.asked: list[tuple[str, AnyQuery]] = []
        self.gates: dict[str, threading.Event] = {}
        self.replaced: list[str] = []

    def question_slots(self):
        return self.slots

    def spare_slots(self):
        return self.spare

    def start(self, slot):
        if slot not in self.running:
            self.running.append(slot)

    def end(self, slot):
        self.running.remove(slot)
        self.ended.append(slot)

    def ask(self, query, timeout, slot, subject):
        self.asked.append((slot, query))
        if gate := self.gates.get(query.model):
            assert gate.wait(PATIENCE_SECONDS)
        if query.wrong:
            raise PlainError(f"{subject[:1].upper()}{subject[1:]} has no answer.")
        return query

    def replace(self, slot):
        self.replaced.append(slot)
        self.gates[next(query.model for at, query in reversed(self.asked) if at == slot)].set()


@pytest.fixture
def make_queue():
    """Return a queue with the given number of workers, and a function to ask."""
    made = []

    def make(slots=1, spare=0):
        workers = Workers(slots, spare)
        made.append(Questions(lambda: workers))
        return made[-1], workers

    with ThreadPoolExecutor(32) as threads:
        yield lambda slots=1, spare=0: (*make(slots, spare), threads)
        for each in made:
            each.close()


def closed_gate(workers, *models):
    workers.gates |= {model: threading.Event() for model in models}


def ask(queue, model, visitor=None, timeout=PATIENCE_SECONDS, **more):
    return queue.ask(AnyQuery(model, **more), timeout, visitor)


def waiting(queue):
    return sum(len(question.tickets) for question in queue._questions.values())


def test_equal_questions_at_once_are_one_and_later_ones_none(make_queue):
    queue, workers, threads = make_queue()
    closed_gate(workers, "a")
    answers = [threads.submit(ask, queue, "a", visitor) for visitor in range(20)]
    wait_for(lambda: waiting(queue) == 20)
    workers.gates["a"].set()
    assert [each.result().model for each in answers] == ["a"] * 20
    assert ask(queue, "a").model == "a" and len(workers.asked) == 1


def test_a_newer_question_drops_the_older_one_unless_others_wait_for_it(make_queue):
    queue, workers, threads = make_queue()
    closed_gate(workers, "busy")
    busy = threads.submit(ask, queue, "busy")
    wait_for(lambda: workers.asked)
    asked = [
        threads.submit(ask, queue, "alone", "me"),
        threads.submit(ask, queue, "shared", "other"),
    ]
    wait_for(lambda: waiting(queue) == 3)
    moved = threads.submit(ask, queue, "shared", "me")
    with pytest.raises(Overtaken):
        asked[0].result()
    again = threads.submit(ask, queue, "last", "me")
    with pytest.raises(Overtaken):
        moved.result()
    workers.gates["busy"].set()
    assert [each.result().model for each in (busy, asked[1], again)] == [
        "busy",
        "shared",
        "last",
    ]
    assert [query.model for _, query in workers.asked] == ["busy", "shared", "last"]


def test_questions_without_a_visitor_drop_no_others(make_queue):
    queue, workers, threads = make_queue()
    closed_gate(workers, "busy")
    busy = threads.submit(ask, queue, "busy")
    wait_for(lambda: workers.asked)
    asked = [busy, *(threads.submit(ask, queue, model) for model in ("a", "b", "c"))]
    wait_for(lambda: waiting(queue) == 4)
    workers.gates["busy"].set()
    assert sorted(each.result().model for each in asked) == ["a", "b", "busy", "c"]


def test_a_question_of_one_visitor_does_not_wait_for_that_of_another(make_queue):
    queue, workers, threads = make_queue(slots=2)
    closed_gate(workers, "slow")
    slow = threads.submit(ask, queue, "slow", "one")
    wait_for(lambda: workers.asked)
    assert ask(queue, "quick", "two").model == "quick"
    assert not slow.done()
    workers.gates["slow"].set()
    slow.result()


def test_spare_workers_start_while_all_others_are_busy_with_slow_questions(make_queue, monkeypatch):
    monkeypatch.setattr(questions, "SLOW_SECONDS", 0.05)
    monkeypatch.setattr(questions, "SPARE_SECONDS", 0.05)
    queue, workers, threads = make_queue(slots=1, spare=2)
    slow = ["slow 1", "slow 2", "slow 3"]
    closed_gate(workers, *slow)
    asked = [threads.submit(ask, queue, slow[0], 1)]
    wait_for(lambda: workers.asked)
    assert ask(queue, "quick", 2).model == "quick"
    assert workers.asked[-1][0].startswith("spare") and not asked[0].done()
    wait_for(lambda: workers.ended and not workers.running)
    asked += [
        threads.submit(ask, queue, model, visitor) for visitor, model in enumerate(slow[1:], 2)
    ]
    wait_for(lambda: len(workers.asked) == 4)
    assert sorted(workers.running) == ["spare-0", "spare-1"], "one for each slow question"
    with pytest.raises(PlainError, match="busy with other questions"):
        ask(queue, "quick again", 9, timeout=0.3)
    for model in slow:
        workers.gates[model].set()
    assert [each.result().model for each in asked] == slow
    wait_for(lambda: not workers.running)


def test_no_spare_worker_starts_while_another_is_idle_or_questions_are_quick(make_queue):
    queue, workers, threads = make_queue(slots=2, spare=1)
    closed_gate(workers, "slow")
    slow = threads.submit(ask, queue, "slow", "one")
    wait_for(lambda: workers.asked)
    for number in range(50):
        ask(queue, f"quick {number}", number)
    workers.gates["slow"].set()
    slow.result()
    assert {slot for slot, _ in workers.asked} == {"ask-0", "ask-1"} and not workers.running


def test_an_abandoned_question_gives_way(make_queue, monkeypatch):
    monkeypatch.setattr(questions, "ABANDONED_SECONDS", 0.05)
    monkeypatch.setattr(questions, "REPLACING_SECONDS", 0)
    queue, workers, threads = make_queue()
    closed_gate(workers, "stuck", "wanted")
    stuck = threads.submit(ask, queue, "stuck", "me")
    wait_for(lambda: workers.asked)
    assert threads.submit(ask, queue, "other", "me").result().model == "other", (
        "the visitor moved on"
    )
    assert workers.replaced == ["ask-0"]
    with pytest.raises(Overtaken):
        stuck.result()
    wanted = threads.submit(ask, queue, "wanted", "me")
    wait_for(lambda: len(workers.asked) == 3)
    with pytest.raises(PlainError, match="busy with other questions"):
        ask(queue, "third", "you", timeout=0.3)
    assert workers.replaced == ["ask-0"], "somebody waits for that one"
    workers.gates["wanted"].set()
    wanted.result()


def test_questions_go_to_the_worker_with_the_model_open(make_queue):
    queue, workers, _ = make_queue(slots=2)
    for bits in range(6):
        ask(queue, "one", bits=bits)
    assert len({slot for slot, _ in workers.asked}) == 1
    ask(queue, "two")
    for bits in range(6, 9):
        ask(queue, "one", bits=bits)
    assert len({slot for slot, query in workers.asked if query.model == "one"}) == 1


def test_questions_about_one_layer_follow_one_another(make_queue):
    queue, workers, threads = make_queue()
    closed_gate(workers, "busy")
    asked = [threads.submit(ask, queue, "busy")]
    for number in range(8):
        wait_for(lambda: waiting(queue) == len(asked))
        asked.append(threads.submit(ask, queue, "a", layer=f"layer {number % 2}", bits=number))
    wait_for(lambda: waiting(queue) == 9)
    workers.gates["busy"].set()
    for each in asked:
        each.result()
    layers = [query.layer for _, query in workers.asked[1:]]
    assert layers == ["layer 0"] * 4 + ["layer 1"] * 4


def test_an_error_reaches_all_callers_and_is_not_cached(make_queue):
    queue, workers, threads = make_queue()
    closed_gate(workers, "a")
    refused = [
        threads.submit(ask, queue, "a", visitor, wrong=True, layer="x") for visitor in range(3)
    ]
    wait_for(lambda: waiting(queue) == 3)
    workers.gates["a"].set()
    errors = [each.exception() for each in refused]
    assert {str(error) for error in errors} == {
        "The question about layer 'x' of 'a' has no answer."
    } and len(set(map(id, errors))) == 3
    with pytest.raises(PlainError):
        ask(queue, "a", wrong=True, layer="x")
    assert len(workers.asked) == 2


def test_cached_answers_are_limited_in_bytes_least_recently_used_first(make_queue, monkeypatch):
    monkeypatch.setattr(questions, "CACHE_BYTES", 2500)
    queue, workers, _ = make_queue()
    for model in ("a", "b", "a", "c", "a", "b"):
        ask(queue, model, padding="x" * 1000)
    assert [query.model for _, query in workers.asked] == ["a", "b", "c", "b"]


def test_cached_answers_expire(make_queue, monkeypatch):
    monkeypatch.setattr(questions, "CACHE_SECONDS", 0)
    queue, workers, _ = make_queue()
    ask(queue, "a")
    ask(queue, "a")
    assert len(workers.asked) == 2


def test_answers_without_a_model_are_not_cached(make_queue):
    queue, workers, _ = make_queue()
    ask(queue, "")
    ask(queue, "")
    assert len(workers.asked) == 2


def test_a_changed_model_or_text_is_another_question(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "text.txt").write_text("words")

    def query(bits=4, kind=WhatIfQuery):
        data = {"calibration": {"text": str(tmp_path / "text.txt")}}
        step = {"technique": "gptq", "bits": bits}
        return kind(Recipe.from_dict({"model": str(tmp_path), "steps": [step], **data}), "a.layer")

    keys = [query_key(query()), query_key(query())]
    for name in ("config.json", "text.txt"):
        (tmp_path / name).write_text("something longer")
        keys.append(query_key(query()))
    keys += [query_key(query(bits=3)), query_key(query(kind=ExplanationQuery))]
    assert keys[0] == keys[1] and len(set(keys)) == 5


def test_closing_the_session_ends_all_waiting(make_queue):
    queue, workers, threads = make_queue()
    closed_gate(workers, "a", "b")
    asked = [threads.submit(ask, queue, model) for model in ("a", "b")]
    wait_for(lambda: waiting(queue) == 2)
    queue.close()
    for each in asked:
        with pytest.raises(PlainError, match="The app is closing"):
            each.result()
    workers.gates["a"].set()
