"""Progress of a run: how far it is and how long it may take."""

from dataclasses import replace
from itertools import pairwise

import pytest

from engine.events import Message, ProgressEvent, TrainingEvent
from engine.results.schema.tables import CurveRow
from engine.session import Progress
from engine.session.progress import MOST_ROWS, STAGES


def at(stage, done, total, time, **fields):
    return Message(ProgressEvent(stage, done, total, **fields), time)


def progress_after(*news, start=0.0):
    """Progress after messages, or (stage, done, total, time)."""
    progress = Progress(began=start, updated=start)
    for each in news:
        progress = progress.after(each if isinstance(each, Message) else at(*each))
    return progress


def test_a_long_curve_is_thinned_evenly_and_keeps_evaluations():
    progress = Progress()
    for step in range(1, 6001):
        rows = (
            CurveRow(step, "student", "loss", 1.0),
            CurveRow(step, "student", "rate", 0.1),
            *([CurveRow(step, "student", "accuracy", 0.5)] if step % 999 == 0 else []),
        )
        event = TrainingEvent("training", step, 6000, network="student")
        progress = progress.after(Message(event, 1.0, rows))
    losses, judged = (
        [row.step for row in progress.curves if row.name == name] for name in ("loss", "accuracy")
    )
    assert len(progress.curves) <= MOST_ROWS and judged == [999 * number for number in range(1, 7)]
    assert len(losses) > MOST_ROWS / 5 and {b - a for a, b in pairwise(losses[:100])} == {
        losses[1] - losses[0]
    }


MEASURED = ((STAGES[0], 0, 10, 0.0), (STAGES[0], 10, 10, 40.0))


def test_time_left_falls_second_by_second_at_an_even_pace():
    half = progress_after(*MEASURED, (STAGES[2], 0, 10, 40.0), (STAGES[2], 5, 10, 50.0))
    assert half.stage_seconds_left(50.0) == pytest.approx(10)
    assert half.stage_seconds_left(53.0) == pytest.approx(7)


def test_the_last_measurement_is_predicted_from_the_first():
    assert progress_after(
        *MEASURED, (STAGES[2], 0, 10, 40.0), (STAGES[2], 5, 10, 50.0)
    ).seconds_left(50.0) == pytest.approx(10 + 40)


def test_time_left_is_unknown_for_stages_that_have_not_run():
    kept_baseline = progress_after((STAGES[2], 0, 10, 0.0), (STAGES[2], 5, 10, 10.0))
    assert kept_baseline.seconds_left(10.0) is None
    assert "in this step" in kept_baseline.sentence(10.0)
    assert progress_after(*MEASURED).seconds_left(40.0) is None  # how long compressing will take


def test_time_left_is_not_shown_at_the_start_or_when_overdue():
    begun = progress_after(*MEASURED, (STAGES[2], 0, 10, 40.0))
    assert begun.seconds_left(45.0) is None
    nearly = begun.after(at(STAGES[2], 9, 10, 49.0))
    assert nearly.stage_seconds_left(49.0) == pytest.approx(1)
    assert nearly.stage_seconds_left(51.0) is None
    assert nearly.sentence(51.0) == "Compressing · 9 of 10"


def test_time_left_of_training_is_shown_after_ten_steps():
    begun = progress_after(Message(TrainingEvent("training", 0, 900), 0.0))
    early, enough = (
        begun.after(Message(TrainingEvent("training", done, 900, loss=1 / done), 0.5 * done))
        for done in (9, 10)
    )
    assert early.stage_seconds_left(4.5) is None and enough.stage_seconds_left(
        5.0
    ) == pytest.approx(445)


def test_a_second_split_has_its_own_pace_and_the_last_measurement_takes_the_time_of_all():
    """Both are called alike; the first one's minutes say nothing of the second one's pace."""
    both = progress_after(
        (STAGES[0], 0, 1121, 0.0),
        (STAGES[0], 1121, 1121, 300.0),
        (STAGES[0], 0, 1121, 300.0),
        (STAGES[0], 118, 1121, 303.0),
    )
    assert both.stage_seconds_left(303.0) == pytest.approx(3 * (1121 / 118 - 1))
    later = both.after(at(STAGES[2], 0, 10, 330.0)).after(at(STAGES[2], 5, 10, 340.0))
    assert later.seconds_left(340.0) == pytest.approx(10 + 330)


def test_progress_never_decreases():
    steps = (
        *MEASURED,
        ("tokenizing", 0, 0, 41.0),
        (STAGES[2], 3, 10, 42.0),
        ("factorizing", 1, 2, 43.0),
        (STAGES[0], 0, 10, 44.0),
    )
    shares = [progress_after(*steps[:end]).overall for end in range(len(steps) + 1)]
    assert (
        all(before <= after for before, after in pairwise(shares))
        and shares[0] >= 0
        and shares[-1] < 1
    )


def test_more_done_than_there_is_counts_as_all():
    assert progress_after((STAGES[4], 7, 3, 1.0)).overall == 1.0


def test_after_does_not_change_the_earlier_progress():
    before = progress_after(*MEASURED)
    copy = replace(before, seen=dict(before.seen))
    before.after(at(STAGES[2], 0, 1, 50.0))
    assert before == copy


def test_blocks_of_an_earlier_run_do_not_shorten_the_time_left():
    """Six of ten were there before: of the other four, one took 10 seconds."""
    resumed = progress_after(
        *MEASURED,
        ("resuming", 5, 10, 40.0),
        (STAGES[2], 6, 10, 41.0),
        (STAGES[2], 7, 10, 51.0),
    )
    assert resumed.stage_seconds_left(51.0) == pytest.approx(30)


def test_planning_increases_overall_progress():
    planning = progress_after(*MEASURED, ("measuring-sensitivity", 0, 10, 41.0))
    further = planning.after(at("measuring-sensitivity", 5, 10, 45.0))
    compressing = further.after(at(STAGES[2], 0, 10, 50.0))
    assert (
        planning.overall
        < further.overall
        < compressing.overall
        < compressing.after(at(STAGES[3], 0, 1, 60.0)).overall
    )


def test_each_step_of_a_recipe_increases_overall_progress():
    def training(done, loss):
        return TrainingEvent("training", done, 4, 2, 2, network="student", loss=loss)

    events = (
        ProgressEvent("compressing", 0, 4, 1, 2),
        ProgressEvent("compressing", 4, 4, 1, 2),
        ProgressEvent("measuring-step", 0, 4, 1, 2),
        training(1, 0.3),
        training(3, 0.2),
        ProgressEvent("compressing", 0, 4, 2, 2),
        ProgressEvent("compressing", 4, 4, 2, 2),
    )
    stages = *MEASURED, *(Message(event, 41.0 + n) for n, event in enumerate(events))
    shares = [
        progress_after(*stages[:end]).overall * len(STAGES) for end in range(2, len(stages) + 1)
    ]
    assert shares == pytest.approx([1, 2, 2.5, 2.5, 2.5625, 2.6875, 2.75, 3])
