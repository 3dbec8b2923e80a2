"""Panels of the example technique, which only the page imports. Must import neither torch nor the
engine.
"""

import pandas as pd
import plotly.graph_objects as go

from pages.panels import Panel
from pages.panels.theme import COMPRESSED, base_figure, message_figure


def row_scales(scales: pd.DataFrame) -> go.Figure:
    """Rows of ExampleScaleRow of one layer."""
    if scales.empty:
        return message_figure("This layer has no scales.")
    hover = [f"row {row.row}: {row.scale:.3g}" for row in scales.itertuples()]
    bars = go.Bar(
        x=scales.row, y=scales.scale, marker_color=COMPRESSED, hovertext=hover, hoverinfo="text"
    )
    figure = base_figure().add_traces([bars])
    figure.update_xaxes(title_text="Row of the weight (output channel)", showgrid=False)
    return figure.update_yaxes(title_text="Scale (distance of two levels)")


def description(scales: pd.DataFrame) -> str:
    return f"{len(scales)} rows; the largest scale is {scales.scale.max():.3g}."


ROW_SCALES = Panel(
    question="How far apart are the levels of each row?",
    caption="One large weight stretches the grid of its row and makes it coarser.",
    draw=row_scales,
    describe=description,
)


def largest_weights(rows: pd.DataFrame) -> go.Figure:
    """Rows of ExampleLargestRow."""
    if rows.empty:
        return message_figure("This layer has no rows.")
    hover = [f"row {row.row}: {row.largest:.3g}" for row in rows.itertuples()]
    look = {"mode": "markers", "marker_color": COMPRESSED, "hovertext": hover, "hoverinfo": "text"}
    figure = base_figure().add_traces([go.Scatter(x=rows.largest, y=rows.scale, **look)])
    figure.update_xaxes(title_text="Largest |weight| of the row")
    return figure.update_yaxes(title_text="Scale (distance of two levels)")


LARGEST_WEIGHTS = Panel(
    question="How does the largest weight of a row set its scale?",
    caption="The scale is proportional to the largest weight: one outlier makes its row coarser.",
    draw=largest_weights,
)
