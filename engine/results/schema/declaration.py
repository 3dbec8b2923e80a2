"""Declarations of a run's tables and of the views of them.

A frozen dataclass under ``@run_table`` is the only declaration of its table: the Parquet schema,
the builder that collects its rows and the reader derive from it. A ``ResultView`` next to it shows
the table among a run's results. Rows of explanations and previews, which are not stored, are frozen
dataclasses under ``@explanation_row``. A technique declares its own ones in a module ``tables`` in
its folder, which must not import torch.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from keyword import iskeyword
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import pandas as pd

NAN = float("nan")
NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
METHODS = {"add", "empty", "followed_by", "of", "tables"}  # of Tables and TableBuilder
Row = TypeVar("Row", bound=type)


@dataclass(frozen=True)
class Column:
    name: str
    type: Any  # int, float, bool, str, Literal of texts, or tuple[int, ...]
    default: Any = MISSING  # value in runs that were stored before the column was added

    @property
    def is_text(self) -> bool:
        return self.type is str or get_origin(self.type) is Literal

    @property
    def is_shape(self) -> bool:
        return get_origin(self.type) is tuple


@dataclass(frozen=True)
class RunTable:
    """Table of a run, stored as ``{name}.parquet``."""

    name: str
    row: type
    # every run has its file, so that a missing one is damage; other tables are empty in runs that
    # were stored before they were added
    required: bool = False


@dataclass(frozen=True)
class ResultView:
    """View of a finished run: panels about one table, shown for runs in which it has rows.

    A panel is named as in ``pages.panels``, or as ``"package.module:NAME"``. A view with controls
    or texts of its own names a function instead of panels, ``draw="package.module:function"``,
    which the page calls with the run's record, its tables and a key for widgets.
    """

    title: str
    row: type
    panels: tuple[str, ...] = ()
    position: int = 500  # among the views; smaller ones come first
    per_layer: bool = False  # the user chooses a layer, and the panels get its rows
    opens_first: bool = False  # preferred to the errors of the layers when a run is opened
    draw: str = ""

    def __post_init__(self) -> None:
        table_of(self.row)  # raises TypeError if it is not declared
        names = [column.name for column in columns_of(self.row)]
        if self.per_layer and "layer" not in names:
            raise TypeError(f"{self.row.__name__} has no column 'layer' for a view per layer")
        if bool(self.panels) == bool(self.draw):
            raise TypeError(f"the view {self.title!r} names no panel and no function, or both")


def run_table(name: str, *, required: bool = False) -> Callable[[Row], Row]:
    """Declare a frozen dataclass as the row class of the run table ``name``.

    A column added later needs a default, which runs stored without it get when they are read.
    Raises TypeError for a name that is no lower-case identifier or is a method of ``Tables`` or
    ``TableBuilder``, and for a column whose type is not stored.
    """
    if not NAME.fullmatch(name) or iskeyword(name) or name in METHODS:
        raise TypeError(
            f"{name!r} cannot name a table: use another name of lowercase letters, digits and "
            "underscores"
        )

    def declare(row: Row) -> Row:
        if not is_dataclass(row):
            raise TypeError(f"{row.__name__} is not a dataclass: put @run_table above @dataclass")
        for column in columns_of(row):
            if not is_stored(column.type):
                raise TypeError(f"column {column.name} of {row.__name__} cannot be {column.type}")
        row.run_table = RunTable(name, row, required)
        return row

    return declare


def table_of(row: type) -> RunTable:
    """Declaration of a row class. Raises TypeError if it has none."""
    declared = vars(row).get("run_table")
    if declared is None:
        raise TypeError(f"{row.__name__} is not declared with @run_table")
    return declared


def explanation_row(*, panel: str) -> Callable[[Row], Row]:
    """Declare a dataclass as the row class of an explanation or preview, which ``panel`` shows. The
    panel is named as in ``ResultView``.
    """

    def declare(row: Row) -> Row:
        row.explanation_panel = panel
        return row

    return declare


def panel_of(row: type) -> str:
    """Name of the panel for explanations of these rows. Raises TypeError if none is declared."""
    declared = vars(row).get("explanation_panel")
    if declared is None:
        raise TypeError(f"{row.__name__} is not declared with @explanation_row")
    return declared


def is_stored(kind: Any) -> bool:
    """Return True for a column type that a table can store."""
    if get_origin(kind) is Literal:
        return all(isinstance(value, str) for value in get_args(kind))
    return kind in (int, float, bool, str, tuple[int, ...])


@cache
def columns_of(row: type) -> tuple[Column, ...]:
    types = get_type_hints(row)
    return tuple(Column(field.name, types[field.name], field.default) for field in fields(row))


def empty_table(row: type) -> pd.DataFrame:
    """Return an empty table. It is a copy of a cached one, because creating dozens of columns is
    slow.
    """
    return no_rows(row).copy()


@cache
def no_rows(row: type) -> pd.DataFrame:
    return table((), row)


def table(rows: Iterable[object], row: type) -> pd.DataFrame:
    """Rows as a frame with the row class's columns, in their order."""
    names = [column.name for column in columns_of(row)]
    return pd.DataFrame([[getattr(row, name) for name in names] for row in rows], columns=names)
