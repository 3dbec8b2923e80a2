"""Rows of a run's tables."""

import pandas as pd
import pytest

from engine.results.schema.run_tables import TABLES
from engine.results.schema.tables import CurveRow, LevelRow, table
from engine.step.table_builder import TableBuilder
from tests.runs import tables


def rows(*steps: int) -> list[CurveRow]:
    return [CurveRow(step, "student", "loss", 1.0) for step in steps]


def test_rows_and_frames_become_one_table_in_their_order():
    builder = TableBuilder()
    builder.curves.extend([*rows(1, 2), table(rows(3, 4), CurveRow), *rows(5)])
    assert list(builder.tables().curves.step) == [1, 2, 3, 4, 5]
    assert builder.tables().levels.empty


def test_tables_come_back_as_they_were():
    before = tables()
    after = TableBuilder.of(before).tables()
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(after, name), getattr(before, name))


def test_of_two_steps_the_later_ones_rows_win_where_it_has_any():
    first = TableBuilder(curves=rows(1), levels=[LevelRow("a", 0.5)])
    both = first.followed_by(TableBuilder(curves=rows(2)))
    assert [row.step for row in both.curves] == [2] and len(both.levels) == 1
    first.add(TableBuilder(curves=rows(3)))
    assert [row.step for row in first.curves] == [1, 3]


def test_only_declared_tables_can_be_filled():
    with pytest.raises(TypeError, match="no table is declared as layer"):
        TableBuilder(layer=[])
    with pytest.raises(AttributeError, match="no table of a run is declared as 'layer'"):
        TableBuilder().layer  # noqa: B018
