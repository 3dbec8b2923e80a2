"""Texts around a figure: its question, how to read it, and a description for screen readers."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go


def row_count(table: pd.DataFrame) -> str:
    return f"{len(table)} row{'' if len(table) == 1 else 's'}"


@dataclass(frozen=True)
class Panel:
    """One question about one table. The figure has no title of its own: the page writes the
    question above it.
    """

    question: str
    # one sentence below the figure: how to read it, in plain language with the field's term
    # them
    caption: str
    draw: Callable[..., go.Figure]  # the table first; options by keyword
    # a few words with the extreme values; not called for an empty table
    describe: Callable[[pd.DataFrame], str] = row_count

    def alt(self, table: pd.DataFrame) -> str:
        """Text for screen readers: the question and what the table answers."""
        return f"{self.question} {'Nothing to show.' if table.empty else self.describe(table)}"
