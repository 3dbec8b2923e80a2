"""All tables of a run: those in ``tables`` and those that techniques declare in their folders."""

import logging
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import pandas as pd

from engine.config.registry import technique_modules
from engine.results.schema import tables
from engine.results.schema.declaration import ResultView, RunTable, empty_table, table_of

LOG = logging.getLogger(__name__)
MODULES = (tables, *technique_modules("tables"))


def declared_tables(modules: Iterable[ModuleType]) -> Iterator[RunTable]:
    """Tables of the modules. One whose name is taken is skipped, with a warning in the log."""
    taken = set()
    for module in modules:
        for row in vars(module).values():
            if not is_declared_in(module, row):
                continue
            declared = table_of(row)
            if declared.name in taken:
                reason = f"the name {declared.name!r} is taken"
                LOG.warning("Skipped table %s of %s: %s", row.__name__, module.__name__, reason)
                continue
            taken.add(declared.name)
            yield declared


def is_declared_in(module: ModuleType, value: Any) -> bool:
    """Return True for a row class that the module declares, not for one that it imports."""
    return (
        isinstance(value, type)
        and value.__module__ == module.__name__
        and "run_table" in vars(value)
    )


TABLES: dict[str, RunTable] = {declared.name: declared for declared in declared_tables(MODULES)}


def declared_views() -> Iterator[ResultView]:
    """Views that are declared next to tables, except those of tables that were skipped."""
    for module in MODULES:
        for view in vars(module).values():
            if isinstance(view, ResultView) and TABLES[table_of(view.row).name].row is view.row:
                yield view


class Tables:
    """Every table of a run by its name: ``tables.layers``. A table that was not given is empty."""

    def __init__(self, **frames: pd.DataFrame) -> None:
        if unknown := frames.keys() - TABLES:
            raise TypeError(f"no table is declared as {', '.join(sorted(unknown))}")
        vars(self).update(
            {
                name: frames[name] if name in frames else empty_table(declared.row)
                for name, declared in TABLES.items()
            }
        )

    def __setstate__(self, frames: dict[str, pd.DataFrame]) -> None:
        """Restore tables from a worker, which may have other packages installed."""
        vars(self).update(vars(Tables(**{name: frames[name] for name in frames if name in TABLES})))

    def __getattr__(self, name: str) -> pd.DataFrame:
        """Called for names that are no table."""
        raise AttributeError(f"no table of a run is declared as {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a run's tables cannot be replaced")

    def __getitem__(self, row: type) -> pd.DataFrame:
        """Table of a row class."""
        return getattr(self, table_of(row).name)

    @classmethod
    def empty(cls) -> "Tables":
        return cls()
