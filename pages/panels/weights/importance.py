"""Importance scores of one layer's kept and removed weights."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import percent
from pages.panels.panel import Panel
from pages.panels.theme import ORIGINAL, REFERENCE, base_figure, message_figure

SIDES = {"goes": ("Removed", REFERENCE), "stays": ("Kept", ORIGINAL)}


def importance(rows: pd.DataFrame) -> go.Figure:
    """Rows of ImportanceRow of one layer, stacked; the axis is logarithmic."""
    if rows.empty:
        return message_figure("No layer was pruned.")
    figure = (
        base_figure()
        .update_layout(barmode="stack", bargap=0)
        .add_traces([bars(rows, side) for side in SIDES])
    )
    figure.update_xaxes(
        title_text="Importance (score, log)",
        type="log",
        exponentformat="power",
        dtick=1,
    )
    return figure.update_yaxes(title_text="Weights (number)")


def bars(rows: pd.DataFrame, side: str) -> go.Bar:
    name, color = SIDES[side]
    middle = (rows.left * rows.right) ** 0.5
    hover = [
        f"score {row.left:.2g} to {row.right:.2g}<br>{row.stays:,} kept, {row.goes:,} removed"
        for row in rows.itertuples(index=False)
    ]
    return go.Bar(
        x=middle,
        y=rows[side],
        width=rows.right - rows.left,
        marker={"color": color},
        name=name,
        hovertext=hover,
        hoverinfo="text",
    )


def description(rows: pd.DataFrame) -> str:
    both = rows.stays + rows.goes
    mixed = both[(rows.stays > 0) & (rows.goes > 0)].sum() / max(1, both.sum())
    removed = rows.goes.sum() / max(1, both.sum())
    return (
        f"{percent(removed)} of the weights were removed; {percent(mixed)} are in bins that were "
        "partly removed."
    )


IMPORTANCE = Panel(
    question="Which importance scores were pruned?",
    caption=(
        "Weights by their importance score; gray ones were removed. A sharp edge means one "
        "threshold for the layer; if both colors share a bin, each row or group had its own "
        "threshold."
    ),
    draw=importance,
    describe=description,
)
