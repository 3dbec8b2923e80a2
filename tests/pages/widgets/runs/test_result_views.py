"""A finished run has the views whose tables have rows."""

import pytest

from engine.config.registry import TECHNIQUES
from engine.recipe import Recipe
from engine.results.schema.declaration import table_of
from engine.results.schema.run_tables import TABLES, Tables, declared_views
from engine.results.schema.tables import SearchRow, table
from pages.widgets.chart_card import panel_named
from pages.widgets.runs.result_views import available_views, view_notes
from pages.widgets.runs.view_registry import VIEWS
from tests.runs import finished_record, tables

ALWAYS = ["Layers", "Bytes", "Recipe"]


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


def test_techniques_add_their_notes_to_existing_views():
    for technique in TECHNIQUES.values():
        assert set(technique.view_notes) <= set(VIEWS)
    recipe = Recipe.from_dict({"steps": [{"technique": "sparsegpt"}]})
    run = finished_record().model_copy(update={"recipe": recipe})
    assert "SparseGPT" in view_notes(run, "Importance")[0] and not view_notes(run, "Layers")


def test_techniques_name_further_panels_of_their_curves():
    further = {name: cls.curve_panels for name, cls in TECHNIQUES.items() if cls.curve_panels}
    assert "LOST_GRADIENTS" in further["mixed-precision-training"]
    for names in further.values():
        assert all(panel_named(name) for name in names)
