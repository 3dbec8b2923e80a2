from pages.panels.weights.group_rounding import group_rounding
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_each_weight_is_joined_to_what_it_becomes():
    group = tables.group()
    figure = group_rounding(group, tables.levels(16))
    strokes = next(trace for trace in figure.data if trace.name is None and trace.mode == "lines")
    assert strokes.y[0::3] == tuple(group.original) and strokes.y[1::3] == tuple(group.stored)
    assert {y for y in trace_named(figure, "16 levels").y if y is not None} == set(
        tables.levels(16).value
    )


def test_the_weight_that_was_asked_about_is_ringed():
    assert list(trace_named(group_rounding(tables.group()), "This weight").x) == [3]
    assert all(
        trace.name != "This weight"
        for trace in group_rounding(tables.group().assign(chosen=False)).data
    )
