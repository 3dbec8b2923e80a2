"""Panels of a training and of what a teacher says."""

import pandas as pd
import pytest

from pages.panels.soft_targets import soft_targets
from pages.panels.theme import HIGHLIGHT
from pages.panels.training_curves import MOST, training_curves
from tests.pages.panels import tables


def named(figure, name: str):
    return next(trace for trace in figure.data if trace.name == name)


@pytest.mark.parametrize(("quality", "best"), [("accuracy", 30), ("perplexity", 0)])
def test_the_ring_is_on_the_best_state_which_of_perplexities_is_the_least(quality, best):
    figure = training_curves(tables.curves(quality))
    assert list(named(figure, "Kept").x) == [best]
    assert figure.layout.yaxis2.title.text.startswith(quality.capitalize())


def test_every_term_of_the_loss_has_a_line_and_neither_rate_nor_speed_is_one():
    assert {trace.name for trace in training_curves(tables.curves()).data} == {
        "Loss", "Of it: labels", "Of it: teacher", "Accuracy, held out", "Kept",
    }  # fmt: skip


def test_two_phases_are_told_apart():
    both = pd.concat([tables.curves(phase="generation 1"), tables.curves(phase="generation 2")])
    names = [trace.name for trace in training_curves(both).data]
    assert {"Generation 1, loss", "Generation 2, loss", "Generation 1, held out", "Generation 2, held out"} <= set(names)


def test_a_long_training_is_thinned_and_a_short_one_is_whole():
    assert len(named(training_curves(tables.curves(steps=40)), "Loss").x) == 40
    long = named(training_curves(tables.curves(steps=5000)), "Loss")
    assert len(long.x) <= MOST and long.x[0] == 1 and long.x[-1] > 4900


def test_the_right_answer_alone_has_a_frame():
    for trace in soft_targets(tables.soft_targets()).data:
        assert [colour == HIGHLIGHT for colour in trace.marker.line.color] == [False, True, False]


def test_a_temperature_evens_answers_out():
    plain, softened = soft_targets(tables.soft_targets(temperature=4.0)).data
    assert softened.x[0] < plain.x[0] and softened.x[2] > plain.x[2]
