"""Panels about what flows into layers, and how bits and scales were chosen for it."""

import pandas as pd
import pytest

from pages.panels.layers.activation_surface import activation_surface
from pages.panels.layers.alpha_search import alpha_search
from pages.panels.layers.bits_per_layer import MAX_LAYERS, bits_per_layer
from pages.panels.layers.observers import TITLES, observers
from pages.panels.layers.salient_channels import MAX_POINTS, salient_channels
from pages.panels.theme import COMPRESSED, HIGHLIGHT
from tests.pages.panels import tables


def trace(figure, name: str):
    return next(t for t in figure.data if t.name and name in t.name)


# --- salient channels -----------------------------------------------------------------------------


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


# --- alpha search ---------------------------------------------------------------------------------


def test_the_asked_layer_stands_out_and_the_others_stay_thin():
    figure = alpha_search(tables.searches(), layer="model.layers.2.q")
    assert next(t for t in figure.data if t.line.color == COMPRESSED).name == "model.layers.2.q"
    assert (
        trace(figure, "Other layers").y.count(None) == 2
        and trace(figure, "Other layers").line.width == 1
    )


def test_without_a_choice_the_one_that_gained_most_stands_out():
    assert (
        next(t for t in alpha_search(tables.searches()).data if t.line.color == COMPRESSED).name
        == "model.layers.1.q"
    )


def test_the_chosen_alpha_is_marked():
    chosen = trace(alpha_search(tables.searches()), "Chosen")
    assert (list(chosen.x), list(chosen.y)) == ([0.5], [0.4])


def test_a_single_alpha_is_no_search():
    assert not alpha_search(tables.searches().query("alpha == 0.5")).data


def test_errors_far_apart_take_a_logarithmic_axis():
    striking = tables.searches().assign(error=lambda t: t.error.where(t.alpha < 0.7, 500))
    assert (
        alpha_search(tables.searches()).layout.yaxis.type,
        alpha_search(striking).layout.yaxis.type,
    ) == (None, "log")


# --- activation surface ---------------------------------------------------------------------------


@pytest.mark.parametrize("relief", [False, True])
def test_both_versions_share_one_scale_that_reaches_the_largest(relief):
    figure = activation_surface(tables.surface(), as_surface=relief)
    assert (
        len(figure.data) == 2
        and {t.coloraxis for t in figure.data} == {"coloraxis"}
        and figure.layout.coloraxis.cmax == 20
    )
    if relief:
        assert figure.layout.scene.zaxis.range == figure.layout.scene2.zaxis.range == (0, 20)
        assert figure.layout.scene.domain.x == figure.layout.scene2.domain.x == (0, 1)


def test_every_block_lies_where_its_tokens_and_channels_are():
    before = activation_surface(tables.surface()).data[0]
    assert (list(before.x), list(before.y)) == ([0, 8, 16, 24], [0, 4, 8, 12, 16, 20])
    assert before.z[0][2] == 20 and before.z[0][1] == 1 and "channel 16" in before.hovertext[0][2]


def test_an_input_without_scales_is_drawn_once_and_without_a_title():
    figure = activation_surface(tables.surface(scaled=False))
    assert len(figure.data) == 1 and all(
        not annotation.text for annotation in figure.layout.annotations
    )


# --- observers ------------------------------------------------------------------------------------


def test_each_observer_has_its_range_and_the_recipes_stands_out():
    figure = observers(tables.ranges())
    spans = {t.y[0]: t for t in figure.data if t.yaxis == "y2"}
    assert set(spans) == set(TITLES.values()) and list(spans["entropy (KL)"].x) == [-2, 2]
    assert [name for name, t in spans.items() if t.line.color == COMPRESSED] == ["percentile"]


def test_rounding_and_clipping_are_stacked_to_the_whole_error():
    figure, table = observers(tables.ranges()), tables.ranges()
    parts = [t for t in figure.data if t.xaxis == "x2" and t.type == "bar"]
    whole = next(t for t in figure.data if t.type == "scatter" and t.mode == "text").x
    assert figure.layout.barmode == "stack" and list(parts[0].x + parts[1].x) == list(
        whole
    ) == list(table.rounding_error + table.clipping_error)


def test_a_range_that_clips_is_called_saturating_and_one_that_does_not_is_not():
    words = {t.y[0]: t.hovertext for t in observers(tables.ranges()).data if t.yaxis == "y2"}
    assert (
        "non-saturating" in words["min-max"]
        and "non-saturating" not in words["entropy (KL)"]
        and "saturating" in words["entropy (KL)"]
    )


def test_inputs_and_ranges_share_an_axis():
    bars = observers(
        tables.ranges(), histogram=tables.histogram().query("version == 'original'")
    ).data[-1]
    assert (
        bars.xaxis == "x"
        and sum(bars.y) == 5000
        and observers(tables.ranges()).layout.xaxis.anchor == "y2"
    )


# --- bits per layer -------------------------------------------------------------------------------


def sensitivity_rows(layers: pd.DataFrame) -> pd.DataFrame:
    """Sensitivities for the compressed ones of these layers."""
    rows = tables.sensitivity()
    names = dict(zip(rows.layer.unique(), layers.name[layers.technique != ""], strict=False))
    return rows.assign(layer=rows.layer.map(names)).dropna(subset="layer")


def test_bars_are_the_bits_of_every_layer_that_is_counted():
    figure = bits_per_layer(tables.layers())
    drawn = {name: bits for t in figure.data for name, bits in zip(t.y, t.x, strict=True)}
    assert (
        drawn == tables.layers().query("tied_to == ''").set_index("name").bits_per_weight.to_dict()
    )


def test_both_ways_of_measuring_stand_beside_the_bars_at_the_fewest_bits():
    layers = tables.layers()
    figure = bits_per_layer(layers, sensitivity=sensitivity_rows(layers))
    alone, restored = trace(figure, "Only this layer"), trace(figure, "restoring")
    coarsest = sensitivity_rows(layers).query("bits == 2")
    assert (list(alone.x), list(restored.x)) == (
        list(coarsest.quantize_one),
        list(coarsest.restore_one),
    )
    assert (
        alone.xaxis == "x2"
        and figure.layout.xaxis.domain[1] < figure.layout.xaxis2.domain[0]
        and set(alone.y) <= set(layers.name)
    )


def test_without_sensitivities_the_bars_take_the_whole_width():
    for nothing in (None, tables.sensitivity().iloc[:0]):
        assert bits_per_layer(tables.layers(), sensitivity=nothing).layout.xaxis.domain == (0, 1)


def test_beyond_sixty_the_largest_layers_are_drawn_and_it_says_so():
    figure = bits_per_layer(tables.layers(40))
    assert (
        sum(len(t.y) for t in figure.data) == MAX_LAYERS
        and f"{MAX_LAYERS} largest of 81" in figure.layout.xaxis.title.text
    )
