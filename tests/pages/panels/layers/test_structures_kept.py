import pytest

from pages.panels.layers.structures_kept import structures_kept
from tests.pages.panels import tables


def test_the_share_left_of_each_block():
    bars = structures_kept(tables.structures()).data[0]
    assert list(bars.x) == pytest.approx([2 / 3, 5 / 6, 5 / 6])
