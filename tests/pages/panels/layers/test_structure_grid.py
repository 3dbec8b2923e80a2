from pages.panels.layers.structure_grid import structure_grid
from tests.pages.panels import tables


def test_a_head_that_went_is_crossed_out_on_its_own_tile():
    rows = tables.structures("head", 8)
    tiles, crosses = structure_grid(rows).data
    assert tiles.z.shape == (3, 8) and set(zip(crosses.y, crosses.x, strict=True)) == set(
        zip(*rows[~rows.kept][["block", "index"]].T.values, strict=True)
    )
    assert tiles.z.max() == 1.0
