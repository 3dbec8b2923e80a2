"""Rows of a run's tables, collected during the run."""

from itertools import groupby
from typing import Any

import pandas as pd

from engine.results.schema.declaration import table
from engine.results.schema.run_tables import TABLES, Tables
from engine.results.schema.tables import LayerRow


class TableBuilder:
    """A list of rows, or of frames, for each table of a run: ``tables.layers``."""

    def __init__(self, **rows: list[Any]) -> None:
        if unknown := rows.keys() - TABLES:
            raise TypeError(f"no table is declared as {', '.join(sorted(unknown))}")
        vars(self).update({name: rows.get(name, []) for name in TABLES})

    def __getattr__(self, name: str) -> list[Any]:
        """Called for names that are not tables."""
        raise AttributeError(f"no table of a run is declared as {name!r}")

    def tables(self) -> Tables:
        return Tables(
            **{
                name: concatenation(getattr(self, name), declared.row)
                for name, declared in TABLES.items()
            }
        )

    @classmethod
    def of(cls, tables: Tables) -> "TableBuilder":
        """Builder with the rows of layers, and the frames of all other tables."""
        frames = {name: getattr(tables, name) for name in TABLES if name != "layers"}
        return cls(
            layers=[LayerRow(**row) for row in tables.layers.to_dict("records")],
            **{name: [frame] for name, frame in frames.items() if not frame.empty},
        )

    def add(self, other: "TableBuilder") -> None:
        for name in TABLES:
            getattr(self, name).extend(getattr(other, name))

    def followed_by(self, other: "TableBuilder") -> "TableBuilder":
        """Merge the rows of two steps: the later one's notes, and for each table without rows in
        the later step the earlier one's rows.
        """
        return TableBuilder(
            **{name: getattr(other, name) or getattr(self, name) for name in TABLES}
        )


def concatenation(parts: list[Any], row: type) -> pd.DataFrame:
    """One table from rows and frames, in their order."""
    groups = [
        (framed, list(group))
        for framed, group in groupby(parts, key=lambda part: isinstance(part, pd.DataFrame))
    ]
    frames = [
        frame for framed, group in groups for frame in (group if framed else [table(group, row)])
    ]
    return pd.concat(frames, ignore_index=True) if frames else table((), row)
