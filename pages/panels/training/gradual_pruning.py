"""Gradual pruning: sparsity over time, the loss of quality after each pruning step, and its
recovery by training.
"""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import plotly_text
from pages.formatting.numbers import count, megabytes, named_quality, percent
from pages.panels.panel import Panel
from pages.panels.theme import (
    COMPRESSED,
    HIGHLIGHT,
    ORIGINAL,
    PERCENT,
    REFERENCE,
    base_figure,
    message_figure,
)

EVENTS = {
    "before": ("before", REFERENCE, "circle"),
    "cut": ("just pruned", COMPRESSED, "circle-open"),
    "size reached": ("size reached", HIGHLIGHT, "star"),
    "trained": ("trained", COMPRESSED, "circle"),
    "below the floor": ("below minimum quality", HIGHLIGHT, "x"),
    "went back": ("restored earlier state", HIGHLIGHT, "diamond"),
}


def gradual_pruning(moments: pd.DataFrame) -> go.Figure:
    """Rows of ScheduleRow: quality above, sparsity below."""
    if moments.empty:
        return message_figure("Nothing was trained in this run.")
    rows = moments.reset_index(drop=True)
    figure = base_figure(height=460).add_traces(
        [quality_line(rows), *all_event_markers(rows), sparsity_line(rows)]
    )
    figure.add_hline(
        y=rows.quality.iloc[0], line={"color": REFERENCE, "width": 1, "dash": "dash"}, yref="y"
    )
    return with_axes(figure, rows.quality_name.iloc[0])


def with_axes(figure: go.Figure, quality_name: str) -> go.Figure:
    """Quality above and sparsity below, over training steps."""
    accuracy = quality_name == "accuracy"
    above = (
        {"title_text": "Accuracy, held out (%)", "tickformat": PERCENT}
        if accuracy
        else {"title_text": "Perplexity (log)", "type": "log"}
    )
    below = figure.layout.yaxis.to_plotly_json() | {
        "title": {"text": "Zero weights (%)", "standoff": 14}
    }
    figure.update_layout(
        yaxis={"domain": [0.42, 1]} | above,
        yaxis2=below | {"domain": [0, 0.32], "tickformat": PERCENT, "rangemode": "tozero"},
    )
    return figure.update_xaxes(title_text="Training steps (number)", anchor="y2")


def quality_line(rows: pd.DataFrame) -> go.Scatter:
    style = {
        "line": {"color": COMPRESSED, "width": 1},
        "mode": "lines",
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return go.Scatter(x=rows.step, y=rows.quality, **style)


def all_event_markers(rows: pd.DataFrame) -> list[go.Scatter]:
    """One trace for each kind of event."""
    return [
        event_markers(part, *EVENTS[event])
        for event in EVENTS
        if not (part := rows[rows.event == event]).empty
    ]


def event_markers(rows: pd.DataFrame, name: str, color: str, symbol: str) -> go.Scatter:
    marker = {"color": color, "symbol": symbol, "size": 8}
    return go.Scatter(
        x=rows.step,
        y=rows.quality,
        mode="markers",
        marker=marker,
        name=name.capitalize(),
        hovertext=hover(rows),
        hoverinfo="text",
    )


def sparsity_line(rows: pd.DataFrame) -> go.Scatter:
    line = {"color": ORIGINAL, "width": 2, "shape": "hv"}
    return go.Scatter(
        x=rows.step,
        y=rows.sparsity,
        mode="lines",
        line=line,
        name="Zero weights",
        yaxis="y2",
        hovertext=hover(rows),
        hoverinfo="text",
    )


def hover(rows: pd.DataFrame) -> list[str]:
    return [
        (
            f"step {count(row.step)}, "
            f"{plotly_text(row.event)}<br>{named_quality(row.quality_name, row.quality)}<br>"
            f"{percent(row.sparsity)} zero, "
        )
        + megabytes(row.size_bytes)
        + (
            f"<br>{percent(row.regrown)} of the remaining weights had been pruned before"
            if row.regrown
            else ""
        )
        for row in rows.itertuples(index=False)
    ]


def description(moments: pd.DataFrame) -> str:
    first, last = moments.iloc[0], moments.iloc[-1]
    ends = (
        f"from {named_quality(first.quality_name, first.quality)} to "
        f"{named_quality(last.quality_name, last.quality)}"
    )
    return (
        f"In {last.step} training steps {ends} with {percent(last.sparsity)} of the weights zero."
    )


GRADUAL_PRUNING = Panel(
    question="Quality after each pruning step and after training",
    caption=(
        "Above: quality on held-out examples; hollow marks are right after a pruning step, filled "
        "marks after the training that followed; the dashed line is the original. Below: sparsity."
    ),
    draw=gradual_pruning,
    describe=description,
)
