"""Input channels above the threshold, which are kept in 16 bits."""

import pandas as pd
import plotly.graph_objects as go

from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, HIGHLIGHT, REFERENCE, base_figure, message_figure


def outlier_columns(columns: pd.DataFrame) -> go.Figure:
    """Rows of OutlierRow, drawn in their order."""
    if columns.empty:
        return message_figure("No inputs to show.")
    columns = columns.reset_index(drop=True)
    figure = base_figure(height=360).update_layout(barmode="overlay", bargap=0.15)
    figure.add_traces(
        [
            bars(columns[columns.apart], "Kept in 16 bits", HIGHLIGHT),
            bars(columns[~columns.apart], "Stored in 8 bits", COMPRESSED),
        ]
    )
    figure.add_traces([threshold_line(columns)])
    figure.update_xaxes(title_text="Input channels, largest first (rank)", showgrid=False)
    return figure.update_yaxes(title_text="Largest input (max |x|)", rangemode="tozero")


def bars(columns: pd.DataFrame, name: str, color: str) -> go.Bar:
    hover = [
        f"column {row.column}: inputs up to {row.largest:.3g}<br>{name.lower()}"
        for row in columns.itertuples(index=False)
    ]
    style = {"marker": {"color": color}, "name": name, "showlegend": not columns.empty}
    return go.Bar(x=columns.index, y=columns.largest, hovertext=hover, hoverinfo="text", **style)


def threshold_line(columns: pd.DataFrame) -> go.Scatter:
    value, ends = columns.threshold.iloc[0], [-0.5, len(columns) - 0.5]
    line = {"color": REFERENCE, "width": 2, "dash": "dash"}
    return go.Scatter(
        x=ends,
        y=[value, value],
        mode="lines",
        line=line,
        name="Threshold",
        hovertext=f"threshold {value:g}",
        hoverinfo="text",
    )


def description(columns: pd.DataFrame) -> str:
    return (
        f"{columns.apart.sum()} of the {len(columns)} channels shown reach the threshold of "
        f"{columns.threshold.iloc[0]:g}."
    )


OUTLIER_COLUMNS = Panel(
    question="Which inputs are outliers?",
    caption=(
        "Each bar is the largest value of an input channel on calibration data. Weights of "
        "channels at or above the dashed threshold (red) stay in 16 bits; all others are stored "
        "in 8."
    ),
    draw=outlier_columns,
    describe=description,
)
