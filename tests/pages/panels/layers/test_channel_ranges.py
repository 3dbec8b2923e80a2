import pytest

from pages.panels.layers.channel_ranges import channel_ranges
from pages.panels.theme import COMPRESSED, HIGHLIGHT, ORIGINAL
from pages.panels.weights.weight_histogram import weight_histogram
from tests.pages.panels import tables
from tests.pages.panels.traces import trace


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


def test_original_is_the_same_color_wherever_it_is_drawn():
    histogram = weight_histogram(tables.histogram())
    assert (
        trace(histogram, "Original").line.color
        == channel_ranges(tables.channels()).data[0].marker.color
        == ORIGINAL
        != COMPRESSED
    )
