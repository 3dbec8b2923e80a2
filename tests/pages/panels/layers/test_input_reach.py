from pages.panels.layers.input_reach import input_ranges
from tests.pages.panels import tables


def test_inputs_stand_above_their_weights_in_the_tables_order():
    figure = input_ranges(tables.reach())
    assert [t.yaxis for t in figure.data] == ["y", "y", "y2", "y2"] and figure.layout.yaxis.domain[
        0
    ] > figure.layout.yaxis2.domain[1]
    assert list(figure.data[0].y) == list(tables.reach().input_after)
