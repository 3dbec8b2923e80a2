"""The values one layer's weights may take, and how many weights sit on each."""

import pandas as pd
import plotly.graph_objects as go

from pages.panels.numbers import count, percent
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, HIGHLIGHT, frame, sentence


def levels(levels: pd.DataFrame) -> go.Figure:
    """Rows of LevelRow for one layer. Those whose weights were not counted are left out."""
    counted = levels.dropna(subset="weights", ignore_index=True)
    if counted.empty:
        return sentence("The weights of this layer may take any value, or were not counted.")
    figure = frame(height=300).add_traces([stems(counted), heads(counted)])
    figure.update_xaxes(title_text="Level (value, at the median scale)", showgrid=False)
    return figure.update_yaxes(title_text="Weights (count)", rangemode="tozero", exponentformat="SI")


def stems(counted: pd.DataFrame) -> go.Scatter:
    """One line from the axis up to each head, with a gap after it."""
    x = [place for value in counted.value for place in (value, value, None)]
    y = [height for weights in counted.weights for height in (0, weights, None)]
    line = {"color": COMPRESSED, "width": 3 if len(counted) <= 32 else 1}
    return go.Scatter(x=x, y=y, mode="lines", line=line, name="Stems", hoverinfo="skip", showlegend=False)


def heads(counted: pd.DataFrame) -> go.Scatter:
    """The busiest level stands out."""
    busiest = counted.weights.idxmax()
    colours = [HIGHLIGHT if place == busiest else COMPRESSED for place in counted.index]
    dots = {"color": colours, "size": 8 if len(counted) <= 32 else 4}
    return go.Scatter(
        x=counted.value, y=counted.weights, mode="markers", marker=dots, name="Levels", hovertext=words(counted), hoverinfo="text", showlegend=False
    )


def words(counted: pd.DataFrame) -> list[str]:
    whole = counted.weights.sum()
    return [
        f"level {place} of {len(counted)}: {row.value:.4g}, {count(row.weights)} weights ({percent(row.weights / whole)})"
        for place, row in enumerate(counted.itertuples(), 1)
    ]


def description(levels: pd.DataFrame) -> str:
    counted = levels.dropna(subset="weights", ignore_index=True)
    if counted.empty:
        return f"{len(levels)} levels, not counted."
    return f"{len(counted)} levels; the busiest is {words(counted)[counted.weights.idxmax()]}."


LEVELS = Panel(
    question="Which values may this layer's weights take, and how many take each?",
    caption=(
        "Each stem is one value a weight may take (a level of the grid, or a centroid of the codebook), as it is where the scale is the median one; "
        "its height is the number of the layer's weights stored with that code. The busiest is red."
    ),
    draw=levels,
    describe=description,
)
