import pytest

from pages.panels.weights.importance import IMPORTANCE, importance
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_both_sides_are_stacked_over_the_same_bins():
    rows = tables.importance()
    figure = importance(rows)
    gone, kept = trace_named(figure, "Removed"), trace_named(figure, "Kept")
    assert figure.layout.barmode == "stack" and figure.layout.xaxis.type == "log"
    assert list(gone.y) == list(rows.goes) and list(kept.y) == list(rows.stays)
    assert list(gone.x) == list(kept.x)


def test_each_bar_is_centered_in_its_bin_on_the_logarithmic_axis():
    rows = tables.importance()
    bars = importance(rows).data[0]
    assert list(bars.x / rows.left) == pytest.approx(list(rows.right / bars.x))


def test_the_description_tells_one_threshold_from_many():
    rows = tables.importance()
    assert IMPORTANCE.describe(rows) == (
        "50.8% of the weights were removed; 9.8% are in bins that were partly removed."
    )
    sharp = rows.assign(goes=rows.goes.where(rows.stays == 0, 0))
    assert "0% are in bins" in IMPORTANCE.describe(sharp)
