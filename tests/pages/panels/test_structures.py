"""Panels about neurons, heads, channels and blocks."""

import pytest

from pages.panels.layers.structure_grid import structure_grid
from pages.panels.layers.structure_scores import MAX_SCORE_BARS, STRUCTURE_SCORES, structure_scores
from pages.panels.layers.structures_kept import structures_kept
from tests.cases import for_each
from tests.pages.panels import tables


@for_each("number", [6, MAX_SCORE_BARS, MAX_SCORE_BARS + 1, 5000])
def test_every_structure_is_counted_once_on_the_side_it_is_on(number):
    rows = tables.structures(number=number, blocks=1)
    removed, left = structure_scores(rows).data
    counts = (
        [len(removed.x), len(left.x)] if number <= MAX_SCORE_BARS else [sum(removed.y), sum(left.y)]
    )
    assert counts == [(~rows.kept).sum(), rows.kept.sum()] and (removed.name, left.name) == (
        "Removed",
        "Kept",
    )
    assert len(removed.x) <= MAX_SCORE_BARS


def test_blocks_are_drawn_by_their_influence():
    figure = structure_scores(tables.influences())
    assert figure.layout.yaxis.title.text.startswith("Influence") and list(figure.data[0].x) == [1]
    assert (
        STRUCTURE_SCORES.describe(tables.influences())
        == "1 of 4 blocks were removed; the highest score among them is 0.1."
    )


def test_a_head_that_went_is_crossed_out_on_its_own_tile():
    rows = tables.structures("head", 8)
    tiles, crosses = structure_grid(rows).data
    assert tiles.z.shape == (3, 8) and set(zip(crosses.y, crosses.x, strict=True)) == set(
        zip(*rows[~rows.kept][["block", "index"]].T.values, strict=True)
    )
    assert tiles.z.max() == 1.0


def test_the_share_left_of_each_block():
    bars = structures_kept(tables.structures()).data[0]
    assert list(bars.x) == pytest.approx([2 / 3, 5 / 6, 5 / 6])
