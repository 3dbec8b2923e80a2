from pages.panels.layers.rank_per_layer import RANK_PER_LAYER, rank_per_layer
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_bars_are_ranks_and_the_layers_that_were_kept_have_a_color_of_their_own():
    ranks = tables.ranks()
    figure = rank_per_layer(ranks)
    kept, whole = trace_named(figure, "Rank kept"), trace_named(figure, "Unchanged")
    assert list(whole.y) == list(ranks.layer[ranks.whole])
    assert list(kept.x) == list(ranks["rank"][~ranks.whole])
    assert kept.marker.color != whole.marker.color


def test_matrices_are_compared_with_their_break_even_and_kernels_with_their_second_rank():
    ranks = tables.ranks()
    figure = rank_per_layer(ranks)
    even, other = trace_named(figure, "Break-even rank"), trace_named(figure, "Input rank")
    assert set(even.y) == set(ranks.layer) - {"conv"} and list(other.y) == ["conv"]
    assert "7 along inputs" in other.hovertext[0] and "break-even 16.0" in even.hovertext[0]


def test_the_description_names_who_keeps_least_and_most():
    said = RANK_PER_LAYER.describe(tables.ranks())
    assert said.startswith("3 of 4 layers were factorized; conv keeps 40.0% of its parameters")
    assert "model.layers.3.mlp.down_proj 125% at rank 20" in said
    whole = tables.ranks().assign(whole=True)
    assert RANK_PER_LAYER.describe(whole) == "All 4 layers are unchanged."
