import pytest

from pages.panels.layers.sparsity_per_layer import SPARSITY_PER_LAYER, sparsity_per_layer
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_bars_are_the_zero_weights_and_diamonds_the_bytes_saved():
    layers = tables.pruned_layers()
    figure = sparsity_per_layer(layers)
    bars, saved = trace_named(figure, "Zero weights"), trace_named(figure, "Bytes saved")
    pruned = layers.dropna(subset="sparsity").set_index("name")
    assert len(bars.y) == len(pruned) < len(layers)
    for name, sparsity, share in zip(bars.y, bars.x, saved.x, strict=True):
        row = pruned.loc[name]
        assert sparsity == row.sparsity
        assert share == pytest.approx(1 - row.size_bytes / row.original_bytes)


def test_layers_that_were_kept_are_a_sentence_where_there_are_no_others():
    kept = tables.pruned_layers().assign(sparsity=float("nan"))
    assert not sparsity_per_layer(kept).data
    assert SPARSITY_PER_LAYER.describe(kept) == f"All {len(kept)} layers are unchanged."


def test_the_description_names_the_sparsest_layer():
    layers = tables.pruned_layers()
    sparsest = layers.dropna(subset="sparsity").index[-1]
    layers.loc[sparsest, "sparsity"] = 0.9
    assert f"{layers.name[sparsest]} is sparsest, 90.0%" in SPARSITY_PER_LAYER.describe(layers)
