import pandas as pd

from pages.panels.layers.bits_per_layer import MAX_LAYERS, bits_per_layer
from tests.pages.panels import tables
from tests.pages.panels.traces import trace


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


def test_both_measures_are_shown_next_to_the_bars_at_the_fewest_bits():
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
