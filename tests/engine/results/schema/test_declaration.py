"""A table is declared once; schema, empty table, builder and reader derive from the declaration."""

import logging
import pickle
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import pandas as pd
import pytest

from engine.errors import PlainError
from engine.results.schema import run_tables
from engine.results.schema.declaration import (
    METHODS,
    ResultView,
    columns_of,
    empty_table,
    explanation_row,
    panel_of,
    run_table,
    table,
    table_of,
)
from engine.results.schema.run_tables import MODULES, TABLES, Tables, declared_tables
from engine.results.schema.tables import LayerRow
from engine.results.store import parquet
from engine.step.table_builder import TableBuilder


@run_table("extras")
@dataclass(frozen=True)
class ExtraRow:
    layer: str
    shape: tuple[int, ...]
    way: Literal["one", "other"]
    share: float
    whole: bool
    added_later: int = 7


ROWS = [ExtraRow("a", (2, 3), "one", 0.5, True, 1), ExtraRow("b", (), "other", 0.25, False, 2)]


@pytest.fixture
def with_extra_table(monkeypatch):
    """ExtraRow among the tables of every run."""
    monkeypatch.setitem(TABLES, "extras", table_of(ExtraRow))


def without_column(folder, name: str) -> None:
    path = folder / "extras.parquet"
    frame = parquet.table_from_bytes(path.read_bytes(), ExtraRow).drop(columns=name)
    path.write_bytes(parquet.parquet_bytes(frame))


def test_rows_of_a_declared_table_are_collected_stored_and_read_back(with_extra_table, tmp_path):
    rows = TableBuilder(extras=ROWS[:1])
    rows.add(TableBuilder(extras=[table(ROWS[1:], ExtraRow)]))
    tables = rows.tables()
    assert list(tables.extras) == [column.name for column in columns_of(ExtraRow)]
    parquet.save(tables, tmp_path)
    read = parquet.load(tmp_path, ["extras"])
    pd.testing.assert_frame_equal(read.extras, table(ROWS, ExtraRow), check_dtype=False)
    assert read[ExtraRow] is read.extras and read.layers.empty
    again = TableBuilder.of(read).followed_by(TableBuilder()).tables()
    pd.testing.assert_frame_equal(again.extras, read.extras)


def test_older_runs_lack_new_tables_and_new_columns_with_a_default(with_extra_table, tmp_path):
    parquet.save(TableBuilder(extras=list(ROWS)).tables(), tmp_path)
    without_column(tmp_path, "added_later")
    assert parquet.load(tmp_path, ["extras"]).extras.added_later.tolist() == [7, 7]
    (tmp_path / "extras.parquet").unlink()
    read = parquet.load(tmp_path, ["extras"]).extras
    pd.testing.assert_frame_equal(read, empty_table(ExtraRow))


def test_a_missing_column_without_default_or_a_missing_required_table_is_damage(
    with_extra_table, tmp_path
):
    parquet.save(TableBuilder(extras=list(ROWS)).tables(), tmp_path)
    without_column(tmp_path, "share")
    with pytest.raises(PlainError, match=r"extras\.parquet cannot be read"):
        parquet.load(tmp_path, ["extras"])
    (tmp_path / "layers.parquet").unlink()
    with pytest.raises(PlainError, match=r"layers\.parquet is missing"):
        parquet.load(tmp_path, ["layers"])


def test_only_declared_tables_can_be_read_or_written():
    with pytest.raises(AttributeError, match="'lairs'"):
        _ = Tables.empty().lairs
    with pytest.raises(AttributeError, match="'lairs'"):
        TableBuilder().lairs.append(1)
    for kind in (Tables, TableBuilder):
        with pytest.raises(TypeError, match="lairs"):
            kind(lairs=[])
    with pytest.raises(AttributeError):
        Tables.empty().layers = empty_table(LayerRow)


def test_tables_from_a_worker_with_other_packages_have_this_process_s_tables(
    with_extra_table, monkeypatch
):
    sent = pickle.dumps(TableBuilder(extras=list(ROWS)).tables())
    assert len(pickle.loads(sent).extras) == 2
    monkeypatch.delitem(TABLES, "extras")
    monkeypatch.setitem(TABLES, "others", table_of(ExtraRow))
    read = pickle.loads(sent)
    assert read.others.empty and not hasattr(read, "extras")


def test_a_taken_table_name_is_skipped_with_a_warning_and_so_is_its_view(caplog, monkeypatch):
    module = ModuleType("another_package.tables")

    @run_table("layers")
    @dataclass(frozen=True)
    class OtherRow:
        layer: str

    OtherRow.__module__ = module.__name__
    module.OtherRow, module.LayerRow = OtherRow, LayerRow
    with caplog.at_level(logging.WARNING):
        found = {each.name: each.row for each in declared_tables([*MODULES, module])}
    assert found["layers"] is LayerRow and found.keys() == TABLES.keys()
    assert "OtherRow of another_package.tables: the name 'layers' is taken" in caplog.text
    module.VIEW = ResultView("Other", OtherRow, ("MASK",))
    module.MORE = ResultView("More", LayerRow, ("LAYER_ERROR",))
    before = list(run_tables.declared_views())
    monkeypatch.setattr(run_tables, "MODULES", (*MODULES, module))
    assert list(run_tables.declared_views()) == [*before, module.MORE]


@pytest.mark.parametrize(
    "name", ["Layers", "../layers", "two words", "class", "", "_hidden", *sorted(METHODS)]
)
def test_a_table_name_is_a_lower_case_identifier(name):
    with pytest.raises(TypeError, match="cannot name a table"):
        run_table(name)


def test_methods_of_tables_and_their_builder_are_known():
    public = {name for kind in (Tables, TableBuilder) for name in vars(kind) if name[0] != "_"}
    assert public == METHODS


@pytest.mark.parametrize("kind", [int | None, dict, list[int], Literal[1, 2], pd.DataFrame])
def test_a_column_has_a_type_that_is_stored(kind):
    row = dataclass(frozen=True)(type("OddRow", (), {"__annotations__": {"odd": kind}}))
    with pytest.raises(TypeError, match="column odd of OddRow"):
        run_table("odd")(row)


def test_a_view_names_a_declared_table_its_panels_and_a_table_with_layers_if_it_is_per_layer():
    @run_table("plain")
    @dataclass(frozen=True)
    class PlainRow:
        value: float

    assert ResultView("Plain", PlainRow, ("MASK",)).row is PlainRow
    with pytest.raises(TypeError, match="no column 'layer'"):
        ResultView("Plain", PlainRow, ("MASK",), per_layer=True)
    for unclear in ({}, {"panels": ("MASK",), "draw": "package.views:plain"}):
        with pytest.raises(TypeError, match="names no panel and no function, or both"):
            ResultView("Plain", PlainRow, **unclear)
    with pytest.raises(TypeError, match="not declared with @run_table"):
        ResultView("Plain", type("Bare", (PlainRow,), {}), ("MASK",))
    with pytest.raises(TypeError, match="put @run_table above @dataclass"):
        run_table("bare")(type("Bare", (), {}))


def test_stored_files_are_those_of_earlier_versions():
    """Names of the files, and which of them every stored run has."""
    required = "layers channels histograms levels ledger samples searches inputs sensitivity"
    others = (
        "surfaces latency storage importance masks structures ranks singular schedule lottery "
        "curves written stages similarity verdicts mistakes"
    )
    assert {name for name in TABLES if TABLES[name].required} == {*required.split(), "salience"}
    assert TABLES.keys() >= {*others.split()}


def test_the_row_of_an_explanation_names_its_panel():
    @explanation_row(panel="MASK")
    @dataclass(frozen=True)
    class ShownRow:
        value: float

    assert panel_of(ShownRow) == "MASK"
    with pytest.raises(TypeError, match="ExtraRow is not declared with @explanation_row"):
        panel_of(ExtraRow)
