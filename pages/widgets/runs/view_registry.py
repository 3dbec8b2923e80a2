"""Registry of the views of a finished run.

A view of one table is declared next to it (``ResultView``), in the engine or in a technique's
package: panels, or the name of a function. Views of any run that have controls or texts of their
own are functions under ``@result_view``.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import streamlit as st

from engine.results.analysis.runs import worst_layer
from engine.results.schema.declaration import ResultView, table_of
from engine.results.schema.record import RunRecord
from engine.results.schema.run_tables import Tables, declared_views
from pages.widgets.chart_card import panel_key, panel_named, show_panel

Draw = Callable[[RunRecord, Tables, str], None]
Condition = Callable[[RunRecord, Tables], bool]


@dataclass(frozen=True)
class RunView:
    """View of a finished run, drawn for those runs for which ``is_shown`` returns True."""

    title: str
    position: int
    draw: Draw
    is_shown: Condition
    opens_first: bool = False


VIEWS: dict[str, RunView] = {}


def add(view: RunView) -> None:
    """Register a view under its title.

    Raises ValueError if the title is taken.
    """
    if view.title in VIEWS:
        raise ValueError(f"the title {view.title!r} is taken")
    VIEWS[view.title] = view


def result_view(
    title: str,
    position: int,
    row: type | None = None,
    *,
    is_shown: Condition | None = None,
    opens_first: bool = False,
) -> Callable[[Draw], Draw]:
    """Register a function that draws a view. Without a condition, the view is shown for runs in
    which the table of ``row`` has rows, or for all runs if there is none.
    """

    def register(draw: Draw) -> Draw:
        condition = is_shown or (has_rows(row) if row else always)
        add(RunView(title, position, draw, condition, opens_first))
        return draw

    return register


def always(record: RunRecord, tables: Tables) -> bool:
    return True


def has_rows(row: type) -> Condition:
    """Condition that the table of a row class has rows."""
    table_of(row)  # raises TypeError if it is not declared
    return lambda record, tables: not tables[row].empty


def register_declared() -> None:
    """Register the views that are declared next to tables. Those of other packages that cannot be
    used are skipped, with a warning in the log.
    """
    for declared in declared_views():
        try:
            add(function_view(declared) if declared.draw else panels_view(declared))
        except Exception as error:  # code of another package
            reason = f"{type(error).__name__}: {error}"
            logging.getLogger(__name__).warning("Skipped view %s: %s", declared.title, reason)


def function_view(declared: ResultView) -> RunView:
    """View drawn by the function that the declaration names."""
    module, _, name = declared.draw.rpartition(":")
    draw = getattr(import_module(module), name)
    if not callable(draw):
        raise TypeError(f"{declared.draw} is not a function")
    return RunView(
        declared.title, declared.position, draw, has_rows(declared.row), declared.opens_first
    )


def panels_view(declared: ResultView) -> RunView:
    """View that shows the declared panels one below the other."""
    shown = [panel_named(name) for name in declared.panels]

    def draw(record: RunRecord, tables: Tables, key: str) -> None:
        table = tables[declared.row]
        if declared.per_layer:
            table = table[table.layer == pick_layer(tables, key)]
        for name, panel in zip(declared.panels, shown, strict=True):
            show_panel(panel, table, panel_key(key, name))

    return RunView(
        declared.title, declared.position, draw, has_rows(declared.row), declared.opens_first
    )


def pick_layer(tables: Tables, key: str) -> str:
    """Let the user choose a compressed layer, most affected first."""
    compressed = tables.layers[tables.layers.technique != ""]
    names = compressed.name.tolist()
    worst = worst_layer(tables.layers)
    return st.selectbox(
        "Layer", names, names.index(worst) if worst in names else 0, key=f"{key}-layer"
    )
