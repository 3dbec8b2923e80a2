"""Views are registered once, next to their table or as a function of the page."""

import logging
from importlib import import_module

import pandas as pd
import pytest

import pages.panels as room
from engine.results.schema.declaration import ResultView
from engine.results.schema.run_tables import declared_views
from engine.results.schema.tables import ChannelRow
from pages.widgets.chart_card import panel_named
from pages.widgets.runs import (
    result_views,  # noqa: F401  # registers the views of any run
    view_registry,
)
from pages.widgets.runs.view_registry import VIEWS, has_rows, result_view

IN_ORDER = (
    "Steps, Lottery, Training, Curves, Similarity, Mistakes, Written, Layers, Weights, Levels, "
    "Channels, Sparsity, Importance, Mask, Storage, Removed, Ranks, Spectrum, Sensitivity, "
    "Salience, Bits, Inputs, Alpha search, Outliers, Ranges, Bytes, Speed, Text, Recipe"
)


def test_views_have_their_order_and_no_two_share_a_position():
    ordered = sorted(VIEWS.values(), key=lambda view: view.position)
    assert ", ".join(view.title for view in ordered) == IN_ORDER
    assert len({view.position for view in ordered}) == len(ordered)


def test_panels_are_named_as_they_are_exported_or_by_their_module():
    for declared in declared_views():
        assert all(panel_named(name) for name in declared.panels)
    assert panel_named("pages.panels.weights.mask:MASK") is room.MASK
    with pytest.raises(AttributeError):
        panel_named("NO_SUCH_PANEL")
    with pytest.raises(TypeError, match="not a panel"):
        panel_named("pages.panels.theme:ERROR")


def test_a_declared_view_that_cannot_be_used_is_skipped_with_a_warning(monkeypatch, caplog):
    unusable = [
        ResultView("Channels", ChannelRow, ("CHANNEL_ERROR",)),
        ResultView("Unknown panel", ChannelRow, ("NO_SUCH_PANEL",)),
        ResultView("Missing module", ChannelRow, ("no_such_module:PANEL",)),
        ResultView("No function", ChannelRow, draw="pages.panels.theme:ERROR"),
    ]
    monkeypatch.setattr(view_registry, "declared_views", lambda: iter(unusable))
    before = dict(VIEWS)
    with caplog.at_level(logging.WARNING):
        view_registry.register_declared()
    assert before == VIEWS
    reasons = ("'Channels' is taken", "AttributeError", "ModuleNotFoundError", "not a function")
    for reason in reasons:
        assert reason in caplog.text


def test_a_declared_view_may_name_a_function_of_the_page():
    declared = next(view for view in declared_views() if view.draw)
    module, _, name = declared.draw.rpartition(":")
    assert VIEWS[declared.title].draw is getattr(import_module(module), name)


def test_a_function_with_a_taken_title_is_refused():
    with pytest.raises(ValueError, match="'Layers' is taken"):
        result_view("Layers", 1)(lambda record, tables, key: None)


def test_a_condition_names_a_declared_table():
    with pytest.raises(TypeError, match="not declared"):
        has_rows(pd.DataFrame)
