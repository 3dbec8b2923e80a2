from engine.results.analysis.runs import worst_layer
from pages.panels.layers.layer_error import MAX_ROWS, layer_error
from pages.panels.theme import HIGHLIGHT
from tests.pages.panels import tables


def drawn_names(figure) -> set[str]:
    return {name for trace in figure.data for name in trace.y}


def test_kept_layers_are_left_out():
    assert drawn_names(layer_error(tables.layers())) == set(
        tables.layers().dropna(subset="relative_error").name
    )


def test_worst_layer_is_highlighted():
    highlighted = next(t for t in layer_error(tables.layers()).data if t.marker.color == HIGHLIGHT)
    assert list(highlighted.y) == ["model.layers.0.mlp.down_proj"]


def test_the_most_affected_layer_is_chosen_by_output_error_if_measured():
    """The figure highlights the layer that the metric above it names."""
    layers = tables.layers().assign(output_error=lambda t: 1 - t.relative_error)
    highlighted = next(t for t in layer_error(layers).data if t.marker.color == HIGHLIGHT)
    assert (
        list(highlighted.y)
        == [worst_layer(layers)]
        != [layers.name[layers.relative_error.idxmax()]]
    )


def test_layers_stand_in_model_order_from_the_top():
    axis = layer_error(tables.layers(3)).layout.yaxis
    assert list(axis.categoryarray) == list(tables.layers(3).dropna(subset="relative_error").name)
    assert axis.range[0] > axis.range[1]


def test_all_layers_kept_is_a_sentence():
    assert not layer_error(tables.layers(0)).data


def test_output_error_is_drawn_only_where_it_was_measured():
    some = tables.layers().assign(
        output_error=lambda t: t.output_error.where(t.name.str.contains("q_proj"))
    )
    diamonds = layer_error(some).data[-1]
    assert diamonds.name == "Output" and all("q_proj" in name for name in diamonds.y)
    assert all(t.name != "Output" for t in layer_error(some.assign(output_error=tables.NAN)).data)


def test_beyond_forty_only_the_worst_are_drawn_and_it_says_so():
    many = tables.layers(50)
    figure = layer_error(many)
    kept, drawn = many.dropna(subset="relative_error"), drawn_names(figure)
    assert (
        len(drawn) == MAX_ROWS
        and f"{MAX_ROWS} worst of {len(kept)}" in figure.layout.xaxis.title.text
    )
    assert (
        kept[kept.name.isin(drawn)].relative_error.min()
        >= kept[~kept.name.isin(drawn)].relative_error.max()
    )


def test_height_grows_with_the_layers_until_it_is_capped():
    heights = [layer_error(tables.layers(blocks)).layout.height for blocks in (2, 10, 20, 100)]
    assert heights[0] < heights[1] < heights[2] == heights[3]


def test_long_names_are_short_on_the_axis_and_whole_in_hover():
    figure = layer_error(tables.layers())
    assert all(len(text) <= 22 for text in figure.layout.yaxis.ticktext)
    assert (
        "<b>model.layers.0.mlp.down_proj</b>"
        in next(t for t in figure.data if t.marker.color == HIGHLIGHT).hovertext[0]
    )
