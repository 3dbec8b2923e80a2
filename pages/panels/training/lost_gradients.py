"""Gradients that underflow to zero in 16 bits, in each precision."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import plotly_text
from pages.formatting.numbers import count, percent
from pages.panels.panel import Panel
from pages.panels.theme import PERCENT, SERIES, SYMBOLS, base_figure, message_figure


def lost_gradients(curves: pd.DataFrame) -> go.Figure:
    """Rows of CurveRow: share of gradients lost at each evaluation, a line for each precision."""
    rows = lost_gradient_rows(curves)
    if rows.empty:
        return message_figure("This run did not train in a 16-bit precision.")
    figure = base_figure(height=320).add_traces(
        [
            precision_line(phase_rows, number)
            for number, (_, phase_rows) in enumerate(rows.groupby("phase", sort=False))
        ]
    )
    figure.update_yaxes(
        title_text="Underflowed gradients (%)", tickformat=PERCENT, rangemode="tozero"
    )
    return figure.update_xaxes(title_text="Training steps (number)")


def lost_gradient_rows(curves: pd.DataFrame) -> pd.DataFrame:
    return curves[curves.name == "slopes lost"].reset_index(drop=True)


def precision_line(rows: pd.DataFrame, number: int) -> go.Scatter:
    style = {"line": {"color": SERIES[number]}, "marker": {"symbol": SYMBOLS[number], "size": 8}}
    words = [
        f"{plotly_text(row.phase)}<br>step {count(row.step)}<br>{percent(row.value)} of the "
        "gradients"
        for row in rows.itertuples(index=False)
    ]
    return go.Scatter(
        x=rows.step,
        y=rows.value,
        mode="lines+markers",
        name=plotly_text(rows.phase.iloc[0]),
        hovertext=words,
        hoverinfo="text",
        **style,
    )


def description(curves: pd.DataFrame) -> str:
    last = lost_gradient_rows(curves).groupby("phase", sort=False).value.last()
    return (
        "Underflowed gradients at the last evaluation: "
        + ", ".join(f"{phase} {percent(value)}" for phase, value in last.items())
        + "."
    )


LOST_GRADIENTS = Panel(
    question="How many gradients underflow in 16 bits?",
    caption=(
        "Share of the gradients nonzero in float32 that are zero in this precision (underflow), "
        "at the same weights and examples. Loss scaling multiplies the loss first, so that fewer "
        "underflow."
    ),
    draw=lost_gradients,
    describe=description,
)
