import pytest

from pages.panels.layers.salient_channels import MAX_POINTS, salient_channels
from pages.panels.theme import HIGHLIGHT
from tests.pages.panels import tables
from tests.pages.panels.traces import trace


def test_one_percent_of_the_channels_is_salient_and_marked():
    marked = trace(salient_channels(tables.inputs(300)), "Salient")
    assert (
        len(marked.x) == 3
        and marked.marker.color == HIGHLIGHT
        and max(marked.y) == 10
        and min(marked.x) == 1
    )


def test_a_single_channel_of_few_is_salient():
    assert len(trace(salient_channels(tables.inputs(20)), "Salient").x) == 1


def test_after_is_before_divided_by_the_scale():
    figure = salient_channels(tables.inputs(strongest=17, scale=4.0), by_strength=False)
    after = trace(figure, "After")
    assert dict(zip(after.x, after.y, strict=True))[17] == 10 / 4


def test_channels_stand_as_in_the_layer_or_by_strength():
    plain, ordered = (
        salient_channels(tables.inputs(100, strongest=17), by_strength=by) for by in (False, True)
    )
    assert [trace(figure, "Salient").x[0] for figure in (plain, ordered)] == [17, 1]
    assert (
        "(number)" in plain.layout.xaxis.title.text and "(rank)" in ordered.layout.xaxis.title.text
    )


def test_the_strength_may_be_the_largest_value():
    reaching = tables.inputs().assign(largest=lambda t: 4.0 + 9 * (t.channel == 3))
    salient = trace(salient_channels(reaching, measure="largest", by_strength=False), "Salient")
    assert 3 in salient.x and 13 in salient.y and 17 not in salient.x


def test_unscaled_inputs_have_no_lane_for_scales():
    plain, scaled = salient_channels(tables.inputs(scale=1.0)), salient_channels(tables.inputs())
    assert (
        plain.layout.yaxis2.title.text == scaled.layout.yaxis3.title.text == "Weight error (%)"
        and "yaxis3" not in plain.layout
    )
    assert all("After" not in (t.name or "") for t in plain.data)


@pytest.mark.parametrize("channels", [4096, 11008])
def test_thousands_of_channels_are_drawn_as_the_maxima_of_neighbours_and_it_says_so(channels):
    many = tables.inputs(channels, strongest=channels - 2).assign(
        magnitude=lambda t: t.magnitude + t.channel % 7
    )
    figure = salient_channels(many, by_strength=False)
    rest = figure.data[0]
    assert len(rest.x) <= MAX_POINTS and "largest of" in figure.layout.xaxis.title.text
    salient = trace(figure, "Salient").x
    assert max(rest.y) == many.magnitude[~many.channel.isin(salient)].max() and len(salient) == -(
        -channels // 100
    )


def test_lanes_do_not_overlap():
    layout = salient_channels(tables.inputs()).layout
    assert (
        layout.yaxis.domain[0]
        > layout.yaxis2.domain[1]
        > layout.yaxis2.domain[0]
        > layout.yaxis3.domain[1]
        and layout.xaxis.anchor == "y3"
    )
