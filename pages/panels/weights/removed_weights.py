"""A few weights by value and by importance score."""

import pandas as pd
import plotly.graph_objects as go

from pages.panels.panel import Panel
from pages.panels.theme import ORIGINAL, REFERENCE, base_figure, message_figure

SIDES = {False: ("Removed", REFERENCE, "x"), True: ("Kept", ORIGINAL, "circle")}


def removed_weights(rows: pd.DataFrame) -> go.Figure:
    """Rows of RemovedRow."""
    if rows.empty:
        return message_figure("No weights to show.")
    figure = base_figure(height=380).add_traces(
        [dots(rows[rows.stays == side], side) for side in SIDES]
    )
    figure.update_xaxes(title_text="Weight (value)")
    return figure.update_yaxes(
        title_text="Importance (score relative to the largest)", rangemode="tozero"
    )


def dots(rows: pd.DataFrame, stays: bool) -> go.Scatter:
    name, color, symbol = SIDES[stays]
    hover = [
        (
            f"row {row.row}, column {row.column}<br>weight {row.weight:.4g}<br>score "
            f"{row.score:.3g}<br>"
        )
        + (f"kept as {row.stored:.4g}" if row.stays else "removed")
        for row in rows.itertuples(index=False)
    ]
    marker = {"color": color, "size": 5, "symbol": symbol, "opacity": 0.75}
    return go.Scatter(
        x=rows.weight,
        y=rows.score,
        mode="markers",
        marker=marker,
        name=name,
        hovertext=hover,
        hoverinfo="text",
    )


def description(rows: pd.DataFrame) -> str:
    largest = rows.weight.abs()[~rows.stays].max() if (~rows.stays).any() else 0.0
    return (
        f"{int((~rows.stays).sum())} of {len(rows)} weights were removed; the largest of those "
        f"is {largest:.3g}."
    )


REMOVED_WEIGHTS = Panel(
    question="Which weights are removed?",
    caption=(
        "Each mark is a weight: its value on the x-axis, its importance on the y-axis. For "
        "magnitude pruning the marks form a V; calibrated methods spread them and keep small "
        "weights that matter."
    ),
    draw=removed_weights,
    describe=description,
)
