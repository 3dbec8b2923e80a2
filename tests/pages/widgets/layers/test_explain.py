"""Panels of explanations are named by the rows that they show."""

import logging
from dataclasses import dataclass

from streamlit.testing.v1 import AppTest

from engine.config.registry import technique_modules
from engine.results.schema import explanations, tables
from engine.results.schema.declaration import explanation_row, panel_of
from pages.widgets.chart_card import panel_named
from tests.cases import for_each
from tests.pages.panels.tables import group


def test_every_row_of_an_explanation_names_a_panel():
    modules = [explanations, tables, *technique_modules("tables")]
    rows = {row for module in modules for row in vars(module).values() if is_explanation_row(row)}
    assert explanations.GroupRow in rows and tables.StructureRow in rows
    for row in rows:
        assert panel_named(panel_of(row)).question


def is_explanation_row(value: object) -> bool:
    return isinstance(value, type) and "explanation_panel" in vars(value)


@dataclass(frozen=True)
class UndeclaredRow:
    value: float


@explanation_row(panel="no_such_module:PANEL")
class MissingModuleRow(UndeclaredRow):
    pass


@for_each("row", [UndeclaredRow, MissingModuleRow])
def test_a_panel_that_cannot_be_used_is_a_caption_and_a_warning(row, caplog):
    def page(row, table):
        from pages.widgets.layers.explain import explanation_panel

        explanation_panel(row, table, "key")

    with caplog.at_level(logging.WARNING):
        app = AppTest.from_function(page, args=(row, group())).run(timeout=30)
    assert not app.exception and "cannot be loaded" in app.caption[0].value
    assert f"No panel for {row.__name__}" in caplog.text
