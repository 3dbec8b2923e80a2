import numpy as np
import pytest

from pages.panels.weights.reconstruction import RECONSTRUCTION, reconstruction
from tests.pages.panels import tables


def test_the_difference_is_the_reconstruction_minus_the_original_tile_by_tile():
    original, rebuilt, missing = reconstruction(tables.matrix_tiles()).data
    assert np.array(missing.z) == pytest.approx(np.array(rebuilt.z) - np.array(original.z))


def test_all_three_share_their_colors_around_zero():
    maps = reconstruction(tables.matrix_tiles()).data
    assert len({(each.zmin, each.zmax) for each in maps}) == 1
    assert maps[0].zmin == -maps[0].zmax and len({str(each.colorscale) for each in maps}) == 1


def test_the_maps_stand_next_to_one_another_under_their_names():
    figure = reconstruction(tables.matrix_tiles())
    axes = [figure.layout[axis] for axis in ("xaxis", "xaxis2", "xaxis3")]
    ends = [end for axis in axes for end in axis.domain]
    assert ends == sorted(ends) and ends[0] == 0 and ends[-1] == pytest.approx(1)
    names = [words.text for words in figure.layout.annotations]
    assert names == ["Original", "Reconstruction", "Difference"]


def test_a_single_extreme_tile_leaves_the_colors_of_the_others():
    tiles = tables.matrix_tiles(side=20)
    before = reconstruction(tiles).data[0].zmax
    tiles.loc[0, "value"] = 1e6
    assert reconstruction(tiles).data[0].zmax < 2 * before


def test_the_description_measures_what_is_missing():
    tiles = tables.matrix_tiles()
    norm = {name: np.linalg.norm(part.value) for name, part in tiles.groupby("version")}
    share = 100 * norm["missing"] / norm["original"]
    assert f"36 tiles; the difference has {share:.3g}%" in RECONSTRUCTION.describe(tiles)
