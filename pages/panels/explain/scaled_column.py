"""The column of the strongest input, rounded without and with a scale."""

import pandas as pd
import plotly.graph_objects as go

from pages.panels.panel import Panel
from pages.panels.theme import AXIS, COMPRESSED, ORIGINAL, REFERENCE, base_figure, message_figure


def scaled_column(weights: pd.DataFrame) -> go.Figure:
    """Rows of ScaledRow: weights before and after scaling, and their rounding errors below."""
    if weights.empty:
        return message_figure("There is no column to show.")
    figure = base_figure(height=460).update_layout(barmode="group", bargap=0.25)
    figure.add_traces(
        [
            weight_line(weights, "original"),
            weight_line(weights, "scaled"),
            error_bars(weights, "error_without"),
            error_bars(weights, "error_with"),
        ]
    )
    figure.update_layout(
        yaxis={"domain": [0.54, 1]},
        yaxis2=AXIS | {"domain": [0, 0.42], "anchor": "x"},
        xaxis={"anchor": "y2"},
    )
    figure.update_yaxes(title_text="Weight (value)", selector={"anchor": None}).update_layout(
        yaxis2={"title": {"text": "Error (value)"}}
    )
    return figure.update_xaxes(title_text="Output channel (row)", showgrid=False)


def weight_line(weights: pd.DataFrame, version: str) -> go.Scatter:
    factor = weights.factor.iloc[0]
    name, color = {"original": ("Weight", ORIGINAL), "scaled": (f"Times {factor:.3g}", COMPRESSED)}[
        version
    ]
    style = {
        "mode": "lines+markers",
        "marker": {"color": color, "size": 6},
        "line": {"color": color, "width": 1},
    }
    return go.Scatter(
        x=weights.row,
        y=weights[version],
        name=name,
        hovertext=hover(weights),
        hoverinfo="text",
        **style,
    )


def error_bars(weights: pd.DataFrame, version: str) -> go.Bar:
    name, color = {
        "error_without": ("Error without the scale", REFERENCE),
        "error_with": ("Error with the scale", COMPRESSED),
    }[version]
    style = {"marker": {"color": color}, "yaxis": "y2", "name": name}
    return go.Bar(
        x=weights.row, y=weights[version], hovertext=hover(weights), hoverinfo="text", **style
    )


def hover(weights: pd.DataFrame) -> list[str]:
    return [
        f"row {row.row}, column {row.column}<br>{row.original:.4g}, times {row.factor:.3g} is "
        f"{row.scaled:.4g}"
        f"<br>error without {row.error_without:+.2g}, with {row.error_with:+.2g}"
        for row in weights.itertuples(index=False)
    ]


def description(weights: pd.DataFrame) -> str:
    without, within = (
        (weights[name] ** 2).mean() ** 0.5 for name in ("error_without", "error_with")
    )
    return (
        f"Column {weights.column.iloc[0]} times {weights.factor.iloc[0]:.3g}: its root mean square "
        f"error goes from {without:.2g} to {within:.2g} over {len(weights)} rows."
    )


SCALED_COLUMN = Panel(
    question="What does scaling do to the column with the strongest input?",
    caption=(
        "Above: the column's weights before and after scaling. Below: their rounding errors "
        "without the scale and with it (divided out again); the latter includes the clipping "
        "search."
    ),
    draw=scaled_column,
    describe=description,
)
