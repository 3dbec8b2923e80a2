import pytest

from pages.panels.weights.weight_histogram import weight_histogram
from tests.pages.panels import tables
from tests.pages.panels.traces import trace


def test_bars_cover_their_bins_and_nothing_else():
    bins = tables.histogram().query("version == 'compressed'")
    bars = trace(weight_histogram(tables.histogram()), "Compressed")
    assert list(bars.x - bars.width / 2) == pytest.approx(list(bins.left))
    assert list(bars.x + bars.width / 2) == pytest.approx(list(bins.right))


def test_both_versions_count_the_same_weights():
    figure = weight_histogram(tables.histogram())
    assert sum(trace(figure, "Original").y) == sum(trace(figure, "Compressed").y)


@pytest.mark.parametrize("number", [4, 16, 256])
def test_levels_are_drawn_inside_the_histogram(number):
    figure = weight_histogram(tables.histogram(), levels=tables.levels(number))
    rug, bars = trace(figure, f"{number} levels"), trace(figure, "Compressed")
    assert min(bars.x) < min(rug.x) and max(rug.x) < max(bars.x)
    assert figure.layout.yaxis2.domain[1] < figure.layout.yaxis.domain[0], (
        "the rug has a lane of its own"
    )


def test_many_levels_are_drawn_thinner():
    thin, thick = (
        trace(weight_histogram(tables.histogram(), levels=tables.levels(n)), "levels")
        for n in (256, 16)
    )
    assert thin.marker.line.width < thick.marker.line.width


def test_log_counts_change_the_axis_and_not_the_bars():
    plain, log = (
        weight_histogram(tables.histogram()),
        weight_histogram(tables.histogram(), log_counts=True),
    )
    assert (plain.layout.yaxis.type, log.layout.yaxis.type) == (None, "log")
    assert plain.data == log.data


def test_one_bar_far_above_all_others_is_cut_off_with_its_count():
    histogram = tables.histogram()
    assert not weight_histogram(histogram).layout.annotations
    compressed = histogram[histogram.version == "compressed"]
    spiked = histogram.copy()
    spiked.loc[compressed["count"].idxmax(), "count"] = 20_000
    figure = weight_histogram(spiked)
    assert "20.0 k" in figure.layout.annotations[0].text and figure.layout.yaxis.range[1] < 20_000
    assert max(trace(figure, "Compressed").y) == 20_000
    assert not weight_histogram(spiked, log_counts=True).layout.annotations
