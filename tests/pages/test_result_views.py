"""Views of a finished run: declared once, next to their table or as a function of the page."""

import logging
from importlib import import_module

import pandas as pd
import pytest

import pages.panels as room
from engine.config.registry import TECHNIQUES
from engine.recipe import Recipe
from engine.results.schema.declaration import ResultView, table_of
from engine.results.schema.run_tables import TABLES, Tables, declared_views
from engine.results.schema.tables import ChannelRow, SearchRow, table
from pages.widgets.runs import view_registry
from pages.widgets.runs.result_views import available_views, view_notes
from pages.widgets.runs.results import default_view
from pages.widgets.runs.view_registry import VIEWS, has_rows, panel_named, result_view
from tests.runs import finished_record, tables

IN_ORDER = (
    "Steps, Lottery, Training, Curves, Similarity, Mistakes, Written, Layers, Weights, Levels, "
    "Channels, Sparsity, Importance, Mask, Storage, Removed, Ranks, Spectrum, Sensitivity, "
    "Salience, Bits, Inputs, Alpha search, Outliers, Ranges, Bytes, Speed, Text, Recipe"
)
ALWAYS = ["Layers", "Bytes", "Recipe"]


def test_views_have_their_order_and_no_two_share_a_position():
    ordered = sorted(VIEWS.values(), key=lambda view: view.position)
    assert ", ".join(view.title for view in ordered) == IN_ORDER
    assert len({view.position for view in ordered}) == len(ordered)


def test_a_run_without_rows_has_the_views_that_are_always_shown():
    run = finished_record()
    assert list(available_views(run, Tables.empty())) == ["Layers", "Bits", "Bytes", "Recipe"]
    original = run.model_copy(update={"recipe": Recipe()})
    assert list(available_views(original, Tables.empty())) == ALWAYS


@pytest.mark.parametrize("name", TABLES)
def test_a_table_with_rows_brings_the_views_that_need_it(name):
    """Every table of a run is shown in a view, or belongs to one that is always there."""
    frame = getattr(tables(), name)
    if name == "searches":  # one strength alone is no search
        frame = table(
            [SearchRow("conv", "norm", alpha, 0.5, alpha == 0) for alpha in (0, 1)], SearchRow
        )
    shown = available_views(finished_record(), Tables(**{name: frame}))
    more = set(shown) - {*ALWAYS, "Bits"}
    assert bool(more) == (name not in ("layers", "ledger", "mistakes")), more


def test_a_declared_view_is_shown_exactly_for_runs_whose_table_has_rows():
    for declared in declared_views():
        name, full = table_of(declared.row).name, tables()
        assert declared.title in available_views(
            finished_record(), Tables(**{name: getattr(full, name)})
        )
        others = {other: getattr(full, other) for other in TABLES if other != name}
        assert declared.title not in available_views(finished_record(), Tables(**others))


def test_a_run_opens_with_the_view_of_its_training_or_with_its_layers():
    assert (
        default_view(available_views(finished_record(), Tables.empty()), finished_record())
        == "Layers"
    )
    assert (
        default_view(available_views(finished_record(), tables()), finished_record()) == "Lottery"
    )
    only_curves = Tables(curves=tables().curves)
    assert (
        default_view(available_views(finished_record(), only_curves), finished_record()) == "Curves"
    )


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
    for reason in (
        "'Channels' is taken",
        "AttributeError",
        "ModuleNotFoundError",
        "not a function",
    ):
        assert reason in caplog.text


def test_a_declared_view_may_name_a_function_of_the_page():
    declared = next(view for view in declared_views() if view.draw)
    module, _, name = declared.draw.rpartition(":")
    assert VIEWS[declared.title].draw is getattr(import_module(module), name)


def test_techniques_add_their_notes_to_existing_views():
    for technique in TECHNIQUES.values():
        assert set(technique.view_notes) <= set(VIEWS)
    recipe = Recipe.from_dict({"steps": [{"technique": "sparsegpt"}]})
    run = finished_record().model_copy(update={"recipe": recipe})
    assert "SparseGPT" in view_notes(run, "Importance")[0] and not view_notes(run, "Layers")


def test_a_function_with_a_taken_title_is_refused():
    with pytest.raises(ValueError, match="'Layers' is taken"):
        result_view("Layers", 1)(lambda record, tables, key: None)


def test_a_condition_names_a_declared_table():
    with pytest.raises(TypeError, match="not declared"):
        has_rows(pd.DataFrame)
