"""Panels of a training and of what a teacher says."""

import pandas as pd
import pytest

from pages.panels.runs.agreement import agreement
from pages.panels.theme import HIGHLIGHT
from pages.panels.training.block_similarity import block_similarity
from pages.panels.training.learning_rate import learning_rate
from pages.panels.training.lost_gradients import lost_gradients
from pages.panels.training.soft_targets import soft_targets
from pages.panels.training.throughput import throughput
from pages.panels.training.training_curves import MAX_POINTS, training_curves
from tests.pages.panels import tables


def trace_named(figure, name: str):
    return next(trace for trace in figure.data if trace.name == name)


@pytest.mark.parametrize(("quality", "best"), [("accuracy", 30), ("perplexity", 0)])
def test_the_ring_is_on_the_best_state_which_of_perplexities_is_the_least(quality, best):
    figure = training_curves(tables.curves(quality))
    assert list(trace_named(figure, "Kept").x) == [best]
    assert figure.layout.yaxis2.title.text.startswith(quality.capitalize())


def test_every_term_of_the_loss_has_a_line_and_neither_rate_nor_speed_is_one():
    assert {trace.name for trace in training_curves(tables.curves()).data} == {
        "Loss",
        "Labels term",
        "Teacher term",
        "Accuracy, held out",
        "Kept",
    }


def test_rate_and_pace_are_drawn_as_they_were_noted():
    rate, pace = learning_rate(tables.curves(steps=20)).data
    assert (
        rate.y[0] == pytest.approx(1e-3 * 19 / 20)
        and rate.y[-1] == 0
        and set(pace.y) == {900.0}
        and pace.yaxis == "y2"
    )
    assert (
        len(learning_rate(pd.concat([tables.curves(phase=each) for each in ("a", "b")])).data) == 4
    )


def test_two_phases_are_told_apart():
    both = pd.concat([tables.curves(phase="generation 1"), tables.curves(phase="generation 2")])
    names = [trace.name for trace in training_curves(both).data]
    assert {
        "Generation 1, loss",
        "Generation 2, loss",
        "Generation 1, held out",
        "Generation 2, held out",
    } <= set(names)


def test_a_long_training_is_thinned_and_a_short_one_is_whole():
    assert len(trace_named(training_curves(tables.curves(steps=40)), "Loss").x) == 40
    long = trace_named(training_curves(tables.curves(steps=5000)), "Loss")
    assert len(long.x) <= MAX_POINTS and long.x[0] == 1 and long.x[-1] > 4900


def test_the_right_answer_alone_has_a_frame():
    traces = soft_targets(tables.soft_targets()).data
    assert traces
    for trace in traces:
        assert [color == HIGHLIGHT for color in trace.marker.line.color] == [False, True, False]


def test_a_temperature_evens_answers_out():
    plain, softened = soft_targets(tables.soft_targets(temperature=4.0)).data
    assert softened.x[0] < plain.x[0] and softened.x[2] > plain.x[2]


def test_of_many_phases_only_the_whole_loss_is_drawn():
    names = [trace.name for trace in training_curves(tables.precisions()).data]
    assert names == [
        f"{phase}, {what}"
        for what in ("loss", "held out")
        for phase in ("Float32", "Bfloat16", "Float16")
    ]


def test_gradients_lost_have_a_line_for_each_short_precision_and_paces_a_bar_for_all():
    assert [(trace.name, *trace.y) for trace in lost_gradients(tables.precisions()).data] == [
        ("bfloat16", 0, 0),
        ("float16", 0.1, 0.1),
    ]
    (bars,) = throughput(tables.precisions()).data
    assert dict(zip(bars.y, bars.x, strict=True)) == {
        "float32": 400,
        "bfloat16": 500,
        "float16": 100,
    }


def test_each_of_the_students_blocks_is_framed_where_it_resembles_its_teacher_most():
    tiles, frames = block_similarity(tables.similarity()).data
    assert list(tiles.y) == ["input", "1", "2"] and list(tiles.x) == ["input", "1", "2", "3", "4"]
    assert list(zip(frames.y, frames.x, strict=True)) == [
        ("input", "input"),
        ("1", "2"),
        ("2", "4"),
    ]


def test_numbers_are_written_only_where_there_is_room():
    assert (
        block_similarity(tables.similarity(4)).data[0].texttemplate
        and not block_similarity(tables.similarity(24)).data[0].texttemplate
    )


def test_of_four_cases_each_has_its_share_also_where_nobody_counted_one():
    (bars,) = agreement(tables.verdicts()).data
    assert dict(zip(bars.y, bars.x, strict=True)) == {
        "Both right": 0.7,
        "Only the teacher": 0.15,
        "Only the student": 0.05,
        "Neither": 0.1,
    }
    (bars,) = agreement(tables.verdicts().iloc[:2]).data
    assert list(bars.x) == pytest.approx([70 / 85, 15 / 85, 0, 0])
