import numpy as np

from pages.panels.weights.mask_overlap import MASK_OVERLAP, mask_overlap
from tests.pages.panels import tables


def test_every_pair_is_one_cell_and_the_diagonal_agrees_with_itself():
    rows = tables.overlap().sample(frac=1, random_state=0)
    [cells] = mask_overlap(rows).data
    grid = np.array(cells.z)
    assert np.array_equal(grid, grid.T) and (grid.diagonal() == 1).all()
    assert list(cells.x) == list(cells.y) and (cells.zmin, cells.zmax) == (0, 1)
    assert cells.text[0][0] == "100%"


def test_the_description_names_who_agrees_most_and_least():
    said = MASK_OVERLAP.describe(tables.overlap())
    assert said.startswith("Magnitude pruning (L1) and Wanda agree most, 80.0%;")
    assert "Random pruning least, 33.0%." in said
    one = tables.overlap().query("one == other").head(1)
    assert MASK_OVERLAP.describe(one) == "Only one method."
