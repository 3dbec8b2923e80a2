"""Training curves: the loss and its terms, and the quality on held-out examples."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import plotly_text
from pages.formatting.numbers import count, named_quality
from pages.panels.panel import Panel
from pages.panels.theme import (
    COMPRESSED,
    HIGHLIGHT,
    PERCENT,
    SERIES,
    SYMBOLS,
    base_figure,
    message_figure,
)

QUALITY_NAMES = ("accuracy", "perplexity")
NOT_LOSS_TERMS = (
    *QUALITY_NAMES,
    "rate",
    "examples per second",
    "loss scale",
    "slopes lost",
)  # no terms of a loss
MAX_DETAILED_PHASES = 2  # phases, above which terms are not drawn
MAX_POINTS = 300  # maximum points of a line


def training_curves(curves: pd.DataFrame) -> go.Figure:
    """Rows of CurveRow: the loss and its terms above, quality below."""
    if curves.empty:
        return message_figure("Nothing was trained in this run.")
    rows = curves.reset_index(drop=True)
    losses, quality = rows[~rows.name.isin(NOT_LOSS_TERMS)], rows[rows.name.isin(QUALITY_NAMES)]
    figure = base_figure(height=480).add_traces([*loss_lines(losses), *quality_lines(quality)])
    below = figure.layout.yaxis.to_plotly_json() | {
        "title": {"text": quality_title(quality), "standoff": 14},
        "domain": [0, 0.4],
    }
    scale = {"tickformat": PERCENT} if "accuracy" in set(quality.name) else {"type": "log"}
    figure.update_layout(
        yaxis={"domain": [0.5, 1], "title_text": "Loss (nats)", "rangemode": "tozero"},
        yaxis2=below | scale,
    )
    return figure.update_xaxes(title_text="Training steps (number)", anchor="y2")


def quality_title(quality_rows: pd.DataFrame) -> str:
    return (
        "Perplexity, held out (log)"
        if "perplexity" in set(quality_rows.name)
        else "Accuracy, held out (%)"
    )


def loss_lines(terms: pd.DataFrame) -> list[go.Scatter]:
    """Lines of the loss and its terms. Each of several phases has its own color, and with many
    phases only the loss is drawn.
    """
    several = terms.phase.nunique() > 1
    terms = terms[terms.name == "loss"] if terms.phase.nunique() > MAX_DETAILED_PHASES else terms
    lines = list(terms.groupby(["phase", "name"], sort=False))
    return [
        loss_line(downsampled_rows(rows), curve_name(phase, name, several), number, name)
        for number, ((phase, name), rows) in enumerate(lines)
    ]


def curve_name(phase: str, name: str, several: bool) -> str:
    words = "loss" if name == "loss" else f"{name} term"
    return plotly_text(f"{phase.capitalize()}, {words}" if several else words.capitalize())


def downsampled_rows(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.iloc[:: -(-len(rows) // MAX_POINTS)] if len(rows) else rows


def loss_line(rows: pd.DataFrame, name: str, number: int, term: str) -> go.Scatter:
    line = {"color": SERIES[number % len(SERIES)], "width": 2 if term == "loss" else 1}
    words = [
        f"step {count(row.step)}<br>{name.lower()} {row.value:.4g} nats"
        for row in rows.itertuples(index=False)
    ]
    return go.Scatter(
        x=rows.step,
        y=rows.value,
        mode="lines",
        line=line,
        name=name,
        hovertext=words,
        hoverinfo="text",
    )


def quality_lines(quality_rows: pd.DataFrame) -> list[go.Scatter]:
    several = quality_rows.phase.nunique() > 1
    lines = [
        quality_line(rows, phase, number, several)
        for number, (phase, rows) in enumerate(quality_rows.groupby("phase", sort=False))
    ]
    if len(lines) > MAX_DETAILED_PHASES:
        return [in_color_of_loss(line, number) for number, line in enumerate(lines)]
    return [
        *lines,
        *(
            best_marker(rows)
            for _, rows in quality_rows.groupby("phase", sort=False)
            if len(rows) > 1
        ),
    ]


def in_color_of_loss(line: go.Scatter, number: int) -> go.Scatter:
    """Line in the color of its loss, without a legend entry."""
    color = SERIES[number % len(SERIES)]
    return line.update(showlegend=False, line_color=color, marker_color=color)


def quality_line(rows: pd.DataFrame, phase: str, number: int, several: bool) -> go.Scatter:
    color = COMPRESSED if not number else SERIES[number % len(SERIES)]
    style = {
        "line": {"color": color, "width": 2},
        "marker": {"color": color, "size": 7, "symbol": SYMBOLS[number % len(SYMBOLS)]},
    }
    name = (
        plotly_text(f"{phase.capitalize()}, held out")
        if several
        else f"{rows.name.iloc[0].capitalize()}, held out"
    )
    return go.Scatter(
        x=rows.step,
        y=rows.value,
        mode="lines+markers",
        name=name,
        yaxis="y2",
        hovertext=hover(rows),
        hoverinfo="text",
        **style,
    )


def best_marker(rows: pd.DataFrame) -> go.Scatter:
    """Marker of the stored state: the best one, and the latest of equals."""
    lower_is_better = rows.name.iloc[0] == "perplexity"
    top = rows[rows.value == (rows.value.min() if lower_is_better else rows.value.max())].iloc[-1:]
    marker = {"color": HIGHLIGHT, "size": 14, "symbol": "circle-open", "line": {"width": 2}}
    words = [f"kept<br>{line}" for line in hover(top)]
    return go.Scatter(
        x=top.step,
        y=top.value,
        mode="markers",
        marker=marker,
        name="Kept",
        yaxis="y2",
        hovertext=words,
        hoverinfo="text",
    )


def hover(rows: pd.DataFrame) -> list[str]:
    return [
        f"{plotly_text(row.phase)}, step {count(row.step)}<br>{named_quality(row.name, row.value)}"
        for row in rows.itertuples(index=False)
    ]


def description(curves: pd.DataFrame) -> str:
    quality = curves[curves.name.isin(QUALITY_NAMES)]
    if quality.empty:
        return f"{count(curves.step.max())} training steps."
    first, last = quality.iloc[0], quality.iloc[-1]
    return (
        f"In {count(curves.step.max())} training steps from "
        f"{named_quality(first['name'], first.value)} to {named_quality(last['name'], last.value)}."
    )


TRAINING_CURVES = Panel(
    question="Training loss and quality",
    caption=(
        "Above: the loss at each step, in total and per term (unweighted). Below: quality on "
        "held-out examples. The circled state is the best one, which was kept."
    ),
    draw=training_curves,
    describe=description,
)
