import pandas as pd
import pytest

from pages.panels.theme import HIGHLIGHT
from pages.panels.weights.levels import LEVELS, levels
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


@pytest.mark.parametrize("number", [3, 16, 256])
def test_every_stem_rises_from_the_axis_to_its_level(number):
    rows = tables.levels(number)
    figure = levels(rows)
    stems, heads = trace_named(figure, "Stems"), trace_named(figure, "Levels")
    assert list(stems.y[0::3]) == [0] * number and list(stems.y[1::3]) == list(rows.weights)
    assert list(stems.x[0::3]) == list(stems.x[1::3]) == list(heads.x) == list(rows.value)


def test_only_the_most_frequent_level_is_red():
    rows = tables.levels(9)
    colors = trace_named(levels(rows), "Levels").marker.color
    assert [color == HIGHLIGHT for color in colors] == [place == 4 for place in range(9)]
    assert LEVELS.describe(rows).startswith("9 levels; the most frequent is level 5 of 9: 0, 1.0 k")


def test_levels_that_were_not_counted_are_left_out():
    rows = tables.levels(5)
    unknown = pd.concat([rows, rows.assign(value=9.0, weights=float("nan"))])
    assert 9.0 not in trace_named(levels(unknown), "Levels").x
    nothing = rows.assign(weights=float("nan"))
    assert not levels(nothing).data and LEVELS.describe(nothing) == "5 levels, not counted."
