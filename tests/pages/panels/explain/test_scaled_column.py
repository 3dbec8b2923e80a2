from pages.panels.explain.scaled_column import scaled_column
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_errors_stand_below_the_weights_they_belong_to():
    figure = scaled_column(tables.scaled_column())
    assert list(trace_named(figure, "Weight").x) == list(
        trace_named(figure, "Error with the scale").x
    )
    assert figure.layout.yaxis.domain[0] > figure.layout.yaxis2.domain[1]
    assert list(trace_named(figure, "Times 2").y) == list(tables.scaled_column().scaled)
