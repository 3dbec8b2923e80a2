"""Panels about a single layer."""

from itertools import pairwise

import pytest

from pages.panels.layers.channel_error import channel_error
from pages.panels.layers.channel_ranges import channel_ranges
from pages.panels.layers.spectrum import spectrum
from pages.panels.theme import COMPRESSED, HIGHLIGHT, ORIGINAL
from pages.panels.weights.one_layer_side_by_side import one_layer_side_by_side, strip_domain
from pages.panels.weights.weight_histogram import weight_histogram
from tests.pages.panels import tables


def trace(figure, name: str):
    return next(t for t in figure.data if t.name and name in t.name)


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


def test_worst_channel_is_marked():
    figure = channel_error(tables.channels(worst=17))
    marked = next(t for t in figure.data if t.marker.color == HIGHLIGHT)
    assert list(marked.x) == [17] and "channel 17" in figure.layout.annotations[0].text


@pytest.mark.parametrize(("worst", "side"), [(0, "left"), (63, "right")])
def test_words_of_a_channel_at_the_edge_turn_inwards(worst, side):
    assert channel_error(tables.channels(worst=worst)).layout.annotations[0].xanchor == side


def test_channel_without_an_error_is_left_out():
    silent = tables.channels().assign(
        relative_error=lambda t: t.relative_error.where(t.channel != 3)
    )
    assert 3 not in channel_error(silent).data[0].x
    assert not channel_error(silent.assign(relative_error=tables.NAN)).data


def test_four_thousand_channels_take_smaller_dots():
    assert (
        channel_error(tables.channels(4096)).data[0].marker.size
        < channel_error(tables.channels(64)).data[0].marker.size
    )


def test_band_runs_from_minimum_to_maximum():
    others = channel_ranges(tables.channels()).data[0]
    assert list(others.base) == pytest.approx([-0.1] * 63) and list(
        others.base + others.y
    ) == pytest.approx([0.1] * 63)


def test_widest_channel_is_highlighted_and_named():
    widest = next(
        t for t in channel_ranges(tables.channels(worst=5)).data if t.marker.color == HIGHLIGHT
    )
    assert list(widest.x) == [5] and "channel 5" in widest.name


def test_milestones_stand_where_the_energy_is_first_reached():
    rows = tables.spectrum()
    marks = next(t for t in spectrum(rows).data if t.marker.color == HIGHLIGHT)
    for share, rank in zip((0.5, 0.9, 0.99), marks.x, strict=True):
        assert rows.cumulative_energy[rows["index"] == rank].item() >= share
        assert (rows.cumulative_energy[rows["index"] < rank] < share).all()


def test_share_that_is_never_reached_is_not_marked():
    marks = next(
        t
        for t in spectrum(tables.spectrum().query("cumulative_energy < 0.95")).data
        if t.marker.color == HIGHLIGHT
    )
    assert len(marks.x) == 2


def test_every_technique_has_its_strip_with_the_original_behind():
    labels = ("GPTQ", "AWQ", "NF4")
    figure = one_layer_side_by_side(tables.with_labels(tables.histogram(), *labels))
    assert [a.text for a in figure.layout.annotations] == list(labels)
    assert (
        [t.yaxis for t in figure.data if t.name == "Original"]
        == [t.yaxis for t in figure.data if t.name == "Compressed"]
        == ["y", "y2", "y3"]
    )
    assert sum(bool(t.showlegend) for t in figure.data) == 2, "one legend for all strips"


def test_strips_do_not_overlap():
    domains = [strip_domain(number, 5) for number in range(5)]
    assert all(0 <= bottom < top <= 1 for bottom, top in domains)
    assert all(above[0] > below[1] for above, below in pairwise(domains))


def test_original_is_the_same_color_wherever_it_is_drawn():
    histogram = weight_histogram(tables.histogram())
    assert (
        trace(histogram, "Original").line.color
        == channel_ranges(tables.channels()).data[0].marker.color
        == ORIGINAL
        != COMPRESSED
    )
