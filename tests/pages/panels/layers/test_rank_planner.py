import pandas as pd
import pytest

from pages.panels.layers.rank_bars import MAX_LAYERS
from pages.panels.layers.rank_planner import RANK_PLANNER, rank_planner
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_each_layer_has_one_bar_as_long_as_its_rank():
    ranks = tables.planned_ranks()
    figure = rank_planner(ranks)
    drawn = {
        layer: rank
        for name in ("Rank", "Unchanged")
        for layer, rank in zip(
            trace_named(figure, name).y, trace_named(figure, name).x, strict=True
        )
    }
    assert drawn == dict(zip(ranks.layer, ranks["rank"], strict=True))
    assert list(trace_named(figure, "Unchanged").y) == list(ranks.layer[ranks.whole])


def test_errors_have_an_axis_of_their_own_that_reaches_the_largest():
    figure = rank_planner(tables.planned_ranks())
    markers = trace_named(figure, "Predicted error")
    assert markers.xaxis == "x2" and figure.layout.xaxis2.range[1] > max(markers.x) == 0.4
    assert figure.layout.xaxis.domain[1] < figure.layout.xaxis2.domain[0]


def test_beyond_sixty_the_first_layers_are_drawn_and_it_says_so():
    ranks = pd.concat([tables.planned_ranks()] * 25, ignore_index=True)
    ranks["layer"] = [f"model.layers.{number}" for number in range(len(ranks))]
    figure = rank_planner(ranks)
    assert len(trace_named(figure, "Break-even rank").y) == MAX_LAYERS
    assert f"first {MAX_LAYERS} of {len(ranks)} layers" in figure.layout.xaxis.title.text


def test_the_description_names_the_layer_with_the_largest_error_and_all_bytes():
    said = RANK_PLANNER.describe(tables.planned_ranks())
    assert said.startswith("3 layers, 6.1 kB → 4.1 kB") and said.endswith("1 are unchanged.")
    assert "model.layers.0.k, 40.0% at rank 4" in said


@pytest.mark.parametrize("order", [[2, 1, 0], [1, 0, 2]])
def test_the_worst_layer_does_not_depend_on_the_order_of_rows(order):
    assert "0.k, 40.0%" in RANK_PLANNER.describe(tables.planned_ranks().iloc[order])
