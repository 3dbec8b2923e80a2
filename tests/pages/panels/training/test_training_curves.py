import pandas as pd
import pytest

from pages.panels.training.training_curves import MAX_POINTS, training_curves
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


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


def test_two_phases_are_distinguished():
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


def test_of_many_phases_only_the_whole_loss_is_drawn():
    names = [trace.name for trace in training_curves(tables.precisions()).data]
    assert names == [
        f"{phase}, {what}"
        for what in ("loss", "held out")
        for phase in ("Float32", "Bfloat16", "Float16")
    ]
