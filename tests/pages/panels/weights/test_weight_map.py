import numpy as np
import pytest

from pages.panels.weights.weight_map import weight_map
from tests.pages.panels import tables


def test_a_click_on_the_map_names_the_weights_own_row_and_column():
    piece = tables.weight_piece()
    tiles, targets = weight_map(piece).data
    assert set(zip(targets.y, targets.x, strict=True)) == set(
        zip(piece.row, piece.column, strict=True)
    )
    assert list(tiles.x) == sorted(set(piece.column)) and list(tiles.y) == sorted(set(piece.row))
    assert targets.selected.marker.opacity == targets.unselected.marker.opacity == 0, (
        "a click must not change the colors"
    )


@pytest.mark.parametrize("shown", ["original", "stored", "error"])
def test_the_map_shows_what_is_asked_for_around_zero(shown):
    piece = tables.weight_piece().assign(error=lambda t: t.stored - t.original)
    tiles = weight_map(tables.weight_piece(), shown=shown).data[0]
    np.testing.assert_allclose(np.array(tiles.z).flatten(), piece[shown])
    assert tiles.zmin == -tiles.zmax < 0


def test_a_layer_of_zeros_has_a_map_too():
    tiles = weight_map(tables.weight_piece().assign(original=0.0, stored=0.0)).data[0]
    assert tiles.zmin < tiles.zmax


def test_the_chosen_weight_is_framed_on_the_map():
    box = weight_map(tables.weight_piece(), chosen=(66, 130)).layout.shapes[0]
    assert (box.x0, box.x1, box.y0, box.y1) == (129.5, 130.5, 65.5, 66.5)


def test_the_first_row_is_on_top_of_the_map():
    low, high = weight_map(tables.weight_piece()).layout.yaxis.range
    assert low > high
