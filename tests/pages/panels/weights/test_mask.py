import numpy as np

from pages.panels.weights.mask import MASK, mask
from tests.pages.panels import tables


def test_every_tile_is_at_its_place_with_its_share():
    tiles = tables.tiles().sample(frac=1, random_state=0)
    [cells] = mask(tiles).data
    drawn = {
        (row, column): cells.z[i][j]
        for i, row in enumerate(cells.y)
        for j, column in enumerate(cells.x)
    }
    assert drawn == {(tile.row, tile.column): tile.left for tile in tiles.itertuples()}
    assert (cells.zmin, cells.zmax) == (0, 1) and np.shape(cells.hovertext) == np.shape(cells.z)


def test_the_description_has_the_emptiest_and_the_fullest_tile():
    assert MASK.describe(tables.tiles(side=6)) == (
        "Between 0% and 83.3% of the weights of a tile are nonzero."
    )
