from pages.panels.layers.channel_selection import channel_selection
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_each_way_marks_the_channels_that_it_chooses():
    figure = channel_selection(tables.criteria())
    assert len(trace_named(figure, "not chosen").x) == 17 and [
        len(t.x) for t in figure.data[1:]
    ] == [
        1,
        1,
        1,
    ]
    assert max(trace_named(figure, "by activation").y) == tables.criteria().activation.max()
