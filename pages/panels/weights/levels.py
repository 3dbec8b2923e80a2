"""Levels of one layer's weights, and the number of weights at each."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import count, percent
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, HIGHLIGHT, base_figure, message_figure


def levels(levels: pd.DataFrame) -> go.Figure:
    """Rows of LevelRow for one layer; levels without counts are left out."""
    counted = levels.dropna(subset="weights", ignore_index=True)
    if counted.empty:
        return message_figure("This layer has no fixed levels, or its weights were not counted.")
    figure = base_figure(height=300).add_traces([stems(counted), level_markers(counted)])
    figure.update_xaxes(title_text="Level (value, at the median scale)", showgrid=False)
    return figure.update_yaxes(
        title_text="Weights (count)", rangemode="tozero", exponentformat="SI"
    )


def stems(counted: pd.DataFrame) -> go.Scatter:
    """One line from the axis to each marker, with a gap after it."""
    x = [point for value in counted.value for point in (value, value, None)]
    y = [height for weights in counted.weights for height in (0, weights, None)]
    line = {"color": COMPRESSED, "width": 3 if len(counted) <= 32 else 1}
    return go.Scatter(
        x=x, y=y, mode="lines", line=line, name="Stems", hoverinfo="skip", showlegend=False
    )


def level_markers(counted: pd.DataFrame) -> go.Scatter:
    """Markers of the levels, with the most frequent one highlighted."""
    busiest = counted.weights.idxmax()
    colors = [HIGHLIGHT if index == busiest else COMPRESSED for index in counted.index]
    dots = {"color": colors, "size": 8 if len(counted) <= 32 else 4}
    return go.Scatter(
        x=counted.value,
        y=counted.weights,
        mode="markers",
        marker=dots,
        name="Levels",
        hovertext=level_texts(counted),
        hoverinfo="text",
        showlegend=False,
    )


def level_texts(counted: pd.DataFrame) -> list[str]:
    total = counted.weights.sum()
    return [
        (
            f"level {number} of {len(counted)}: {row.value:.4g}, {count(row.weights)} weights "
            f"({percent(row.weights / total)})"
        )
        for number, row in enumerate(counted.itertuples(), 1)
    ]


def description(levels: pd.DataFrame) -> str:
    counted = levels.dropna(subset="weights", ignore_index=True)
    if counted.empty:
        return f"{len(levels)} levels, not counted."
    most_frequent = level_texts(counted)[counted.weights.idxmax()]
    return f"{len(counted)} levels; the most frequent is {most_frequent}."


LEVELS = Panel(
    question="How many weights are stored at each level?",
    caption=(
        "Each stem is a level of the grid or a centroid of the codebook, at the median scale; its "
        "height is the number of weights stored with that code. The most frequent level is red."
    ),
    draw=levels,
    describe=description,
)
