import pytest

from pages.panels.layers.channel_error import channel_error
from pages.panels.theme import HIGHLIGHT
from tests.pages.panels import tables


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
