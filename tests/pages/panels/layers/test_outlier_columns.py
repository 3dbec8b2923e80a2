from pages.panels.layers.outlier_columns import outlier_columns
from pages.panels.theme import HIGHLIGHT
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_columns_that_stay_in_16_bits_are_red():
    figure = outlier_columns(tables.outliers(2))
    assert (
        len(trace_named(figure, "Kept in 16 bits").x) == 2
        and trace_named(figure, "Kept in 16 bits").marker.color == HIGHLIGHT
    )
    assert not trace_named(outlier_columns(tables.outliers(0)), "Kept in 16 bits").showlegend
