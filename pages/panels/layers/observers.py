"""Range that each observer chooses for a layer's inputs, with the errors of rounding and
clipping.
"""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import percent
from pages.panels.panel import Panel
from pages.panels.theme import (
    AXIS,
    COMPRESSED,
    ERROR,
    HIGHLIGHT,
    ORIGINAL,
    PERCENT,
    REFERENCE,
    base_figure,
    message_figure,
    translucent,
)

TITLES = {
    "min-max": "min-max",
    "moving-average": "moving average",
    "percentile": "percentile",
    "mse": "least squared error",
    "entropy": "entropy (KL)",
}


def observers(ranges: pd.DataFrame, *, histogram: pd.DataFrame | None = None) -> go.Figure:
    """Rows of ObserverRow for one layer, with its inputs (HistogramRow) above. The recipe's
    observer is highlighted.
    """
    if ranges.empty:
        return message_figure("No ranges of this layer's inputs were compared.")
    figure = base_figure(height=640).update_layout(
        barmode="stack", bargap=0.35, hovermode="closest"
    )
    figure.add_traces(
        [
            *range_lines(ranges),
            error_part_bars(ranges, "rounding_error"),
            error_part_bars(ranges, "clipping_error"),
            total_labels(ranges),
        ]
    )
    if histogram is not None and not histogram.empty:
        figure.add_traces([input_histogram(histogram)])
    return with_lanes(figure, ranges)


def input_histogram(histogram: pd.DataFrame) -> go.Bar:
    style = {
        "marker": {"color": translucent(ORIGINAL, 0.8), "line": {"width": 0}},
        "name": "Inputs of the layer",
        "showlegend": False,
    }
    text = [
        f"{row.count} from {row.left:.4g} to {row.right:.4g}"
        for row in histogram.itertuples(index=False)
    ]
    middle, width = (histogram.left + histogram.right) / 2, histogram.right - histogram.left
    return go.Bar(
        x=middle,
        y=histogram["count"],
        width=width,
        xaxis="x",
        yaxis="y",
        hovertext=text,
        hoverinfo="text",
        **style,
    )


def range_lines(ranges: pd.DataFrame) -> list[go.Scatter]:
    """Line for each observer from the smallest to the largest representable value."""
    return [range_line(row) for row in ranges.itertuples(index=False)]


def range_line(row: Any) -> go.Scatter:
    color = COMPRESSED if row.chosen else REFERENCE
    style = {
        "mode": "lines+markers",
        "line": {"color": color, "width": 4},
        "marker": {"symbol": "line-ns", "size": 12, "line": {"color": color, "width": 2}},
    }
    return go.Scatter(
        x=[row.low, row.high],
        y=[TITLES[row.observer]] * 2,
        yaxis="y2",
        hovertext=hover(row),
        hoverinfo="text",
        showlegend=False,
        **style,
    )


def error_part_bars(ranges: pd.DataFrame, column: str) -> go.Bar:
    """One part of each observer's error."""
    name, color = {
        "rounding_error": ("Rounding", ERROR),
        "clipping_error": ("Clipping (saturation)", HIGHLIGHT),
    }[column]
    style = {
        "orientation": "h",
        "marker": {"color": color},
        "name": name,
        "xaxis": "x2",
        "yaxis": "y3",
    }
    text = [hover(row) for row in ranges.itertuples(index=False)]
    return go.Bar(
        x=ranges[column], y=ranges.observer.map(TITLES), hovertext=text, hoverinfo="text", **style
    )


def total_labels(ranges: pd.DataFrame) -> go.Scatter:
    """Labels of the bars: their sum, and whether the range saturates."""
    words = [
        f" {percent(row.rounding_error + row.clipping_error)}, {clipping_text(row)}"
        for row in ranges.itertuples(index=False)
    ]
    style = {
        "mode": "text",
        "text": words,
        "textposition": "middle right",
        "showlegend": False,
        "cliponaxis": False,
        "hoverinfo": "skip",
    }
    return go.Scatter(
        x=ranges.rounding_error + ranges.clipping_error,
        y=ranges.observer.map(TITLES),
        xaxis="x2",
        yaxis="y3",
        **style,
    )


def clipping_text(row: Any) -> str:
    return f"clips {percent(row.clipped)}" if row.clipped else "no clipping"


def hover(row: Any) -> str:
    saturation = (
        f"saturating: {percent(row.clipped)} of the values lie outside"
        if row.clipped
        else "non-saturating: no value lies outside"
    )
    return (
        f"<b>{TITLES[row.observer]}</b>{', chosen' if row.chosen else ''}<br>{row.low:.4g} to "
        f"{row.high:.4g}<br>{saturation}"
        f"<br>rounding {percent(row.rounding_error)}, clipping {percent(row.clipping_error)}"
    )


def with_lanes(figure: go.Figure, ranges: pd.DataFrame) -> go.Figure:
    """Three lanes: the inputs, the ranges on the same axis, the errors on their own."""
    names = {"type": "category", "autorange": "reversed", "showgrid": False}
    largest = (ranges.rounding_error + ranges.clipping_error).max()
    figure.update_layout(
        xaxis={"anchor": "y2", "title": {"text": "Input of the layer (value)"}},
        yaxis={
            "domain": [0.7, 1],
            "type": "log",
            "dtick": 1,
            "exponentformat": "SI",
            "title": {"text": "Values (count)"},
        },
        yaxis2=AXIS | names | {"domain": [0.42, 0.67], "anchor": "x"},
        xaxis2=AXIS
        | {
            "anchor": "y3",
            "tickformat": PERCENT,
            "range": [0, max(largest, 1e-12) * 1.9],
            "title": {"text": "Error (% of the inputs' energy)"},
        },
        yaxis3=AXIS | names | {"domain": [0, 0.28], "anchor": "x2"},
    )
    return figure


def description(ranges: pd.DataFrame) -> str:
    rows = ranges.reset_index(drop=True)
    total = rows.rounding_error + rows.clipping_error
    best, worst = rows.loc[total.idxmin()], rows.loc[total.idxmax()]
    return (
        f"{len(rows)} observers; the least error is {percent(total.min())} "
        f"({TITLES[best.observer]}, {clipping_text(best)}), "
        f"the largest {percent(total.max())} ({TITLES[worst.observer]}, {clipping_text(worst)})."
    )


OBSERVERS = Panel(
    question="Which range should this layer's inputs have?",
    caption=(
        "Above: the inputs on calibration data. Below: the range of each observer, the recipe's "
        "in orange. A wide range (non-saturating) rounds coarsely, a narrow one (saturating) "
        "clips; the two bars add up to the squared error, as a share of the inputs' energy."
    ),
    draw=observers,
    describe=description,
)
