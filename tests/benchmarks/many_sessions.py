"""Waiting time for one of a hundred simultaneous questions, as from twenty people who move sliders.

    python -m tests.benchmarks.many_sessions

All rows are measured in one run on one machine: a question alone, then a hundred at once sent
directly to one worker (the former design), then through the session's queue: a hundred people with
different questions; twenty people with five each, of which the newest counts; and twenty people at
the same five positions. Each round uses other seeds, so that no answer is cached.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

from engine.queries import WhatIfQuery
from engine.recipe import Recipe
from engine.results.store.store import Store
from engine.session import Session
from engine.session.questions import Overtaken
from tests.benchmarks.measurement import Measurement, show

MODEL, VISITORS, POSITIONS, ALONE = "bundled:docs-lm", 20, 5, 7
LAYERS = [
    f"model.layers.{block}.{name}"
    for block in range(2)
    for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
]
SECONDS = 600
seeds = count(1)
Question = WhatIfQuery


def measurements() -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Store(Path(folder) / "home"))
        directly = partial(asked_directly, session)
        for layer in LAYERS:  # model opened and modules imported
            answer_seconds(session, what_if(0, layer), object())
        yield Measurement(
            "One what-if alone",
            tuple(answer_seconds(session, what_if(place), object()) for place in range(ALONE)),
            "s",
        )
        before = at_once(
            directly, [(what_if(place), object()) for place in range(VISITORS * POSITIONS)]
        )
        yield Measurement("100 at once, handed to one worker as they come", before, "s")
        different = [(what_if(place), object()) for place in range(VISITORS * POSITIONS)]
        yield Measurement(
            "100 at once, of 100 people, all different",
            at_once(partial(answer_seconds, session), different),
            "s",
        )
        dragged = [
            (what_if(place * VISITORS + person), person)
            for place in range(POSITIONS)
            for person in range(VISITORS)
        ]
        answers = at_once(partial(answer_seconds, session), dragged)
        yield Measurement(
            f"100 at once, of 20 people who drag: {len(answers)} answered, the others overtaken",
            answers,
            "s",
            "1.5 s",
        )
        lesson = [what_if(place) for place in range(POSITIONS)]
        alike = [(question, object()) for question in lesson for _ in range(VISITORS)]
        yield Measurement(
            "100 at once, of 20 people with the same five positions",
            at_once(partial(answer_seconds, session), alike),
            "s",
            "1.5 s",
        )
        session.close()


def what_if(place: int, layer: str = "") -> Question:
    """Question that has not been asked before; layer, bits and group size vary with the
    position.
    """
    step = {
        "technique": "round-to-nearest",
        "bits": 2 + place % 7,
        "group_size": (32, 64, 128)[place % 3],
    }
    recipe = Recipe.from_dict({"model": MODEL, "steps": [step], "seed": next(seeds)})
    return WhatIfQuery(recipe, layer or LAYERS[place % len(LAYERS)])


def at_once(
    ask: Callable[[Question, object], float | None], questions: list[tuple[Question, object]]
) -> tuple[float, ...]:
    """Seconds until each answer, for those that were answered."""
    with ThreadPoolExecutor(len(questions)) as people:
        waited = list(people.map(lambda each: ask(*each), questions))
    return tuple(each for each in waited if each is not None)


def answer_seconds(session: Session, question: Question, visitor: object) -> float | None:
    began = time.perf_counter()
    try:
        session.ask(question, SECONDS, visitor)
    except Overtaken:
        return None
    return time.perf_counter() - began


def asked_directly(session: Session, question: Question, visitor: object) -> float:
    """Ask one worker without the queue, in order of arrival."""
    began, cluster = time.perf_counter(), session._link.cluster()
    cluster.ask(question, SECONDS, cluster.question_slots()[0], "the question")
    return time.perf_counter() - began


if __name__ == "__main__":
    show(measurements())
