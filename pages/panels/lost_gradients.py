"""Which gradients 16 bits make zero, while a model trains in each precision."""

import pandas as pd
import plotly.graph_objects as go

from pages.panels.numbers import count, percent
from pages.panels.panel import Panel
from pages.panels.theme import PERCENT, SERIES, SYMBOLS, frame, sentence


def lost_gradients(curves: pd.DataFrame) -> go.Figure:
    """Rows of CurveRow: the share of gradients lost at each look, a line for each precision."""
    rows = lost(curves)
    if rows.empty:
        return sentence("No precision with 16 bits was trained in.")
    figure = frame(height=320).add_traces([line(each, number) for number, (_, each) in enumerate(rows.groupby("phase", sort=False))])
    figure.update_yaxes(title_text="Gradients lost (%)", tickformat=PERCENT, rangemode="tozero")
    return figure.update_xaxes(title_text="Training steps (number)")


def lost(curves: pd.DataFrame) -> pd.DataFrame:
    return curves[curves.name == "slopes lost"].reset_index(drop=True)


def line(rows: pd.DataFrame, number: int) -> go.Scatter:
    look = {"line": {"color": SERIES[number]}, "marker": {"symbol": SYMBOLS[number], "size": 8}}
    words = [f"{row.phase}<br>step {count(row.step)}<br>{percent(row.value)} of the gradients" for row in rows.itertuples(index=False)]
    return go.Scatter(x=rows.step, y=rows.value, mode="lines+markers", name=rows.phase.iloc[0], hovertext=words, hoverinfo="text", **look)


def description(curves: pd.DataFrame) -> str:
    last = lost(curves).groupby("phase", sort=False).value.last()
    return "Gradients lost at the last look: " + ", ".join(f"{phase} {percent(value)}" for phase, value in last.items()) + "."


LOST_GRADIENTS = Panel(
    question="Which gradients vanish in 16 bits?",
    caption=(
        "Of the gradients that are not zero in float32, the share that is zero in this precision (underflow), at the same weights on the same "
        "examples. Loss scaling multiplies the loss first, so that fewer fall below the least number."
    ),
    draw=lost_gradients,
    describe=description,
)
