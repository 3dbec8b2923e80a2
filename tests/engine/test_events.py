"""Progress events: every one has words, and arrives in another process as it was sent."""

from dataclasses import fields
from typing import get_args

import msgpack
import pytest

from engine.events import (
    EVENTS,
    PHRASES,
    DownloadEvent,
    Message,
    PrecisionEvent,
    ProgressEvent,
    Stage,
    TicketEvent,
    TrainingEvent,
    VariantEvent,
    WorkerEvent,
    counts,
)
from engine.results.schema.tables import CurveRow

SENT = [
    ProgressEvent("compressing", 3, 28, 1, 2),
    VariantEvent("measuring-variant", 3, 10, variant=2, variants=7),
    DownloadEvent("downloading", 10**6, 10**9, model="tiny/llama"),
    TrainingEvent("training", 1, 9, network="student", loss=0.5, metric="accuracy", best=0.9),
    PrecisionEvent("training", 1, 9, loss=0.5, rate=0.1, precision="bfloat16"),
    TicketEvent("training", 1, 9, network="winning ticket", round=1, seed=4),
    WorkerEvent("waiting-for-worker", cause="silent", seconds=31.0),
]


def test_every_stage_has_words():
    assert set(PHRASES) == set(get_args(Stage))
    for stage in PHRASES:
        assert ProgressEvent(stage).title[:1].isupper()


def test_every_kind_of_event_is_sent_here():
    assert {type(event).__name__ for event in SENT} == set(EVENTS)


@pytest.mark.parametrize("event", SENT, ids=lambda event: type(event).__name__)
def test_a_message_arrives_as_it_was_sent(event):
    """A scheduler passes on nothing but plain data."""
    message = Message(event, 12.5, (CurveRow(1, "student", "loss", 0.5),), "tcp://worker")
    plain = msgpack.unpackb(msgpack.packb(message.as_dict()), use_list=False)
    assert Message.of(plain) == message


def test_fields_of_a_later_version_are_ignored():
    message = Message(TrainingEvent("training", 1, 9), 0.0)
    plain = message.as_dict()
    assert Message.of(plain | {"event": plain["event"] | {"temperature": 2.0}}) == message


@pytest.mark.parametrize(
    ("event", "title", "counted"),
    [
        (SENT[0], "Step 1 of 2: compressing", "3 of 28"),
        (SENT[1], "Measuring variant 2 of 7", "3 of 10"),
        (SENT[2], "Downloading tiny/llama", "1.0 MB of 1.0 GB"),
        (SENT[3], "Training · student, loss 0.500, accuracy 90.0%", "1 of 9"),
        (SENT[4], "Training in bfloat16 · loss 0.500", "1 of 9"),
        (SENT[5], "Training · winning ticket, round 1, seed 4", "1 of 9"),
        (SENT[6], "No signal from the worker for 31 s", ""),
        (ProgressEvent("measuring-step", 0, 5, 1, 2), "Measuring after step 1 of 2", "0 of 5"),
    ],
)
def test_the_words_of_an_event_are_made_from_its_fields(event, title, counted):
    assert (event.title, counts(event)) == (title, counted)


def test_numbers_do_not_change_which_stage_it_is():
    first, later = (
        TrainingEvent("training", step, 9, network="student", loss=1 / step, rate=0.1 / step)
        for step in (1, 2)
    )
    assert first.identity == later.identity
    for name in ("stage", "step", "steps"):
        other = {each.name: getattr(first, each.name) for each in fields(first)}
        other[name] = "compressing" if name == "stage" else 5
        assert TrainingEvent(**other).identity != first.identity
