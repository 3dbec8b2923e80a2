"""Queue of questions from many visitors to a few workers.

Equal questions are merged, outdated ones are dropped, and answers are cached. Each worker has a
thread here that passes it one question at a time. While all workers are busy with slow questions,
spare ones are started. Visitors wait on one condition, so that they stop waiting at once when they
move on or time out.
"""

import json
import pickle
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cachetools import TTLCache

from engine.errors import PlainError
from engine.quantities import duration
from engine.queries import Answer, Query
from engine.recipe import file_identity

if TYPE_CHECKING:
    from engine.session.cluster import Cluster

OPEN_MODELS = 3  # per worker
CACHE_BYTES = 64_000_000  # of pickled answers
CACHE_SECONDS = 300  # forecasts improve with probes, and Hub models change
COLD_SECONDS = 0.5  # a question waits for the worker with its model before another opens it
ABANDONED_SECONDS = 2  # others wait before the worker of an abandoned question is replaced
# a spare worker starts when all others have been busy, and a question has waited, this long
SLOW_SECONDS = 2
SPARE_SECONDS = 60  # an idle spare worker ends
REPLACING_SECONDS = 1  # until the new worker runs
OVERTAKEN = "This question was dropped because the same page asked a newer one."
BUSY = "No answer within {time}: the workers are busy with other questions. Try again in a moment."
CLOSED = "The app is closing; start it again."


class Overtaken(PlainError):
    """Raised for a question that a newer one of the same visitor replaced."""


@dataclass(eq=False)
class Ticket:
    """One visitor's wait for an answer."""

    visitor: object
    timeout: float
    asked: float = field(default_factory=time.monotonic)
    overtaken: bool = False


@dataclass(eq=False)
class Question:
    """A question for a worker, shared by all who ask it."""

    key: str
    query: Query[Any]
    tickets: list[Ticket]
    asked: float = field(default_factory=time.monotonic)
    slot: str = ""  # its worker; empty while it waits
    begun: float = 0.0
    cluster: "Cluster | None" = None  # cluster that answers it
    replaced: bool = False  # its worker was killed because no one waits
    answer: bytes | None = None  # pickled
    error: PlainError | None = None

    @property
    def is_settled(self) -> bool:
        return self.answer is not None or self.error is not None

    @property
    def subject(self) -> str:
        """Description for messages, such as "the question about layer 'x' of 'y'"."""
        model, layer = (f"{text[:120]!r}" if text else "" for text in self.query.about)
        what = " of ".join(part for part in (f"layer {layer}" if layer else "", model) if part)
        return f"the question about {what}" if what else "the question"


class Questions:
    """Queue of questions. Thread-safe."""

    def __init__(self, cluster: "Callable[[], Cluster]"):
        self._cluster = cluster
        self._changed = threading.Condition()
        self._questions: OrderedDict[str, Question] = OrderedDict()  # by key, in order
        # pickled, by key
        self._answers: TTLCache[str, bytes] = TTLCache(CACHE_BYTES, CACHE_SECONDS, getsizeof=len)
        self._last: dict[str, tuple[str, str]] = {}  # last model and layer of each worker
        self._open: dict[str, deque[str]] = {}  # open models of each worker
        self._idle: set[str] = set()
        self._spare: frozenset[str] = frozenset()
        # when each last answered, and its cluster
        self._running_spare: dict[str, tuple[float, Cluster]] = {}
        self._closed = False

    def ask(self, query: Query[Answer], timeout: float, visitor: object = None) -> Answer:
        """Return a worker's answer.

        Waits at most ``timeout`` seconds in the queue and as long again for the worker. A visitor
        has one active question: a newer one makes an older one raise Overtaken. Without a visitor,
        none is dropped. Raises PlainError.
        """
        ticket = Ticket(object() if visitor is None else visitor, timeout)
        key = query_key(query)
        with self._changed:
            self._overtake(ticket.visitor)
            if (cached := self._answers.get(key)) is not None:
                return pickle.loads(cached)
        self._begin_serving()
        with self._changed:
            question = self._questions.setdefault(key, Question(key, query, []))
            question.tickets.append(ticket)
            self._changed.notify_all()
            try:
                self._wait(question, ticket)
            finally:
                self._leave(question, ticket)
        if question.error is not None:
            # each thread raises a new one, because a traceback grows with every raise
            raise type(question.error)(str(question.error))
        return pickle.loads(question.answer)

    def close(self) -> None:
        """Stop the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # --- visitors (called with the condition held) -----------------------------------------------

    def _overtake(self, visitor: object) -> None:
        for question in self._questions.values():
            for ticket in question.tickets:
                ticket.overtaken |= ticket.visitor == visitor
        self._changed.notify_all()

    def _wait(self, question: Question, ticket: Ticket) -> None:
        while not question.is_settled:
            if self._closed:
                raise PlainError(CLOSED)
            if ticket.overtaken:
                raise Overtaken(OVERTAKEN)
            if not question.slot:
                self._make_room(question)
                if time.monotonic() - ticket.asked > ticket.timeout:
                    raise PlainError(BUSY.format(time=duration(ticket.timeout)))
            self._changed.wait(ABANDONED_SECONDS / 4 if not question.slot else None)

    def _leave(self, question: Question, ticket: Ticket) -> None:
        question.tickets.remove(ticket)
        if not question.tickets and not question.slot:
            self._questions.pop(question.key, None)

    def _make_room(self, waiting: Question) -> None:
        """Replace a worker that is busy with an abandoned question if another question has waited
        long enough.
        """
        now = time.monotonic()
        if self._idle or now - waiting.asked < ABANDONED_SECONDS:
            return
        for other in self._questions.values():
            if other.cluster and not other.tickets and now - other.begun > ABANDONED_SECONDS:
                del self._questions[other.key]  # later visitors ask it again
                other.replaced = True
                other.cluster.replace(other.slot)
                return

    # --- worker threads --------------------------------------------------------------------------

    def _begin_serving(self) -> None:
        if self._last:
            return
        cluster = self._cluster()  # raises without a cluster
        slots, spare = cluster.question_slots(), cluster.spare_slots()
        with self._changed:
            if self._last or self._closed:
                return
            self._last, self._idle, self._spare = (
                dict.fromkeys(slots + spare, ("", "")),
                set(slots),
                frozenset(spare),
            )
            self._open = {slot: deque(maxlen=OPEN_MODELS) for slot in slots + spare}
            for slot in slots + spare:
                name = f"questions-{slot}"
                threading.Thread(target=self._serve, args=(slot,), name=name, daemon=True).start()

    def _serve(self, slot: str) -> None:
        while (question := self._next(slot)) is not None:
            answer = error = None
            try:
                question.cluster = self._cluster()
                if slot in self._spare:
                    question.cluster.start(slot)
                limit = self._limit(question)
                answer = pickle.dumps(
                    question.cluster.ask(question.query, limit, slot, question.subject)
                )
            except PlainError as refused:
                error = refused
            except Exception as lost:  # the thread must survive
                cause = f"{type(lost).__name__}: {str(lost)[:200]}"
                error = PlainError(f"The answer was lost ({cause}). Try again.")
            with self._changed:
                question.answer, question.error = answer, error
                if self._questions.get(question.key) is question:
                    del self._questions[question.key]
                # answers about processes change
                if answer is not None and any(question.query.about):
                    with suppress(ValueError):  # larger than the cache
                        self._answers[question.key] = answer
                self._changed.notify_all()
            if question.replaced:  # no other question may go to a worker that is being killed
                time.sleep(REPLACING_SECONDS)
            with self._changed:
                if slot in self._spare:
                    if question.cluster:
                        self._running_spare[slot] = time.monotonic(), question.cluster
                else:
                    self._idle.add(slot)
                self._changed.notify_all()

    def _limit(self, question: Question) -> float:
        with self._changed:
            return max((ticket.timeout for ticket in question.tickets), default=ABANDONED_SECONDS)

    def _next(self, slot: str) -> Question | None:
        """Wait for this worker's next question and return it; None when the session closes."""
        with self._changed:
            while not self._closed:
                if (question := self._choice(slot)) is not None:
                    question.slot, question.begun, self._last[slot] = (
                        slot,
                        time.monotonic(),
                        question.query.about,
                    )
                    self._remember(slot, question.query.about[0])
                    self._idle.discard(slot)
                    self._changed.notify_all()  # another worker may take the rest
                    return question
                self._changed.wait(self._patience(slot))
        return None

    def _patience(self, slot: str) -> float | None:
        """Seconds until the worker's situation may change without a notification; None for never.

        Ends a spare worker that has been idle for long.
        """
        if self._waiting():
            return COLD_SECONDS / 4
        if slot not in self._running_spare:
            return None
        answered, cluster = self._running_spare[slot]
        left = answered + SPARE_SECONDS - time.monotonic()
        if left > 0:
            return left
        del self._running_spare[slot]
        self._open[slot].clear()
        cluster.end(slot)
        return None

    def _waiting(self) -> list[Question]:
        return [question for question in self._questions.values() if not question.slot]

    def _choice(self, slot: str) -> Question | None:
        """Choose a waiting question for this worker.

        The oldest one, unless it has not waited long and a newer one is about the layer in the
        worker's memory. None if another worker has the model open: an idle one takes the question,
        a busy one is given a moment. A spare worker helps only while all others are busy with slow
        questions.
        """
        waiting = self._waiting()
        if not waiting:
            return None
        waited = time.monotonic() - waiting[0].asked
        if slot in self._spare:
            return waiting[0] if waited > SLOW_SECONDS and self._all_slow() else None
        same_layer = (question for question in waiting if question.query.about == self._last[slot])
        chosen = next(same_layer, waiting[0]) if waited < ABANDONED_SECONDS else waiting[0]
        model, _ = chosen.query.about
        if model in self._open[slot]:
            return chosen
        elsewhere = {other for other, models in self._open.items() if model in models}
        return None if elsewhere & self._idle or (elsewhere and waited < COLD_SECONDS) else chosen

    def _all_slow(self) -> bool:
        """Return True if all regular workers and all busy spare ones are busy with
        slow questions.
        """
        now = time.monotonic()
        busy = [question for question in self._questions.values() if question.slot]
        return not self._idle and all(now - question.begun > SLOW_SECONDS for question in busy)

    def _remember(self, slot: str, model: str) -> None:
        with suppress(ValueError):
            self._open[slot].remove(model)
        self._open[slot].append(model)


def query_key(query: Query[Any]) -> str:
    """Key of a question: its type, its fields, and the names, sizes and times of all local files in
    them, so that a changed file gives another question.
    """
    plain, kind = query.plain(), type(query)
    text = json.dumps(plain, sort_keys=True)
    return "\n".join(
        [f"{kind.__module__}.{kind.__qualname__}", text, *map(known_files, strings_in(plain))]
    )


def known_files(source: str) -> str:
    try:
        return file_identity(source)
    except OSError:  # an unreadable folder, which the worker reports
        return ""


def strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from strings_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from strings_in(each)
