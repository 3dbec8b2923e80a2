"""Panels about all layers of a model."""

from engine.results.analysis.runs import worst_layer
from pages.panels.layers.layer_error import MAX_ROWS, layer_error
from pages.panels.layers.layer_error_side_by_side import layer_error_side_by_side
from pages.panels.layers.where_the_bytes_are import where_the_bytes_are
from pages.panels.runs.size_ledger import size_ledger
from pages.panels.theme import HIGHLIGHT, SERIES
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


def test_the_output_decides_who_was_hit_hardest_where_it_was_measured():
    """The same layer as in the numbers above the figure, which come from the engine's analysis."""
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


def test_each_run_has_a_color_and_a_symbol_of_its_own():
    figure = layer_error_side_by_side(
        tables.with_labels(tables.layers(), *(f"run {i}" for i in range(8)))
    )
    assert (
        len({t.marker.color for t in figure.data})
        == len({t.marker.symbol for t in figure.data})
        == 8
    )


def test_a_ninth_run_is_left_out_and_it_says_so():
    figure = layer_error_side_by_side(
        tables.with_labels(tables.layers(), *(f"run {i}" for i in range(9)))
    )
    assert len(figure.data) == len(SERIES) and "first 8 of 9 runs" in figure.layout.xaxis.title.text


def test_a_layer_bad_under_one_run_only_is_kept_for_all():
    runs = tables.with_labels(tables.layers(50), "calm", "wild")
    runs.loc[
        (runs.name == "model.layers.3.attn.q_proj") & (runs.label == "wild"), "relative_error"
    ] = 0.9
    figure = layer_error_side_by_side(runs)
    assert all("model.layers.3.attn.q_proj" in trace.y for trace in figure.data)


def test_ledger_steps_end_where_the_next_begins_and_at_the_total():
    bars = size_ledger(tables.ledger()).data[0]
    ends = [base + size for base, size in zip(bars.base, bars.x, strict=True)]
    assert list(bars.base) == [0, *ends[:-1]] and ends[-1] == tables.ledger().size_bytes.sum()


def test_parts_are_summed_over_layers_and_empty_ones_left_out():
    bars = size_ledger(tables.ledger()).data[0]
    assert dict(zip(bars.y, bars.x, strict=True)) == {
        "codes": 15000,
        "scales": 1800,
        "norms and biases": 70,
    }


def test_tied_layers_count_once():
    tree = where_the_bytes_are(tables.layers()).data[0]
    assert (
        "layer lm_head" not in tree.ids
        and tree.values[0] == tables.layers().query("tied_to == ''").original_bytes.sum()
    )


def test_every_tile_is_as_large_as_what_it_holds():
    tree = where_the_bytes_are(tables.layers(3)).data[0]
    for parent, size in zip(tree.ids, tree.values, strict=True):
        inside = [v for p, v in zip(tree.parents, tree.values, strict=True) if p == parent]
        assert not inside or sum(inside) == size


def test_layers_are_named_within_their_block():
    tree = where_the_bytes_are(tables.layers()).data[0]
    assert (
        dict(zip(tree.ids, tree.labels, strict=True))["layer model.layers.0.attn.q_proj"]
        == "attn.q_proj"
    )
