"""A training from its first step on: what it paid, term by term, and how good it was on examples
held out from it.
"""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import whole
from pages.formatting.numbers import count, percent
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, HIGHLIGHT, PERCENT, SERIES, SYMBOLS, frame, sentence

JUDGED = ("accuracy", "perplexity")
APART = (*JUDGED, "rate", "examples per second", "loss scale", "slopes lost")  # no terms of a loss
MANY = 2  # phases, beyond which there is no room for every term
MOST = 300  # points of a line: a screen is not wider


def training_curves(curves: pd.DataFrame) -> go.Figure:
    """Rows of CurveRow: the loss and its terms above, quality below."""
    if curves.empty:
        return sentence("Nothing was trained in this run.")
    rows = curves.reset_index(drop=True)
    paid, judged = rows[~rows.name.isin(APART)], rows[rows.name.isin(JUDGED)]
    figure = frame(height=480).add_traces([*losses(paid), *qualities(judged)])
    below = figure.layout.yaxis.to_plotly_json() | {
        "title": {"text": title_of(judged), "standoff": 14},
        "domain": [0, 0.4],
    }
    scale = {"tickformat": PERCENT} if "accuracy" in set(judged.name) else {"type": "log"}
    figure.update_layout(
        yaxis={"domain": [0.5, 1], "title_text": "Loss (nats)", "rangemode": "tozero"},
        yaxis2=below | scale,
    )
    return figure.update_xaxes(title_text="Training steps (number)", anchor="y2")


def title_of(judged: pd.DataFrame) -> str:
    return (
        "Perplexity, held out (log)"
        if "perplexity" in set(judged.name)
        else "Accuracy, held out (%)"
    )


def losses(paid: pd.DataFrame) -> list[go.Scatter]:
    """The whole in one color, its terms in others; of several phases each has its own, and of many
    the whole alone.
    """
    several = paid.phase.nunique() > 1
    paid = paid[paid.name == "loss"] if paid.phase.nunique() > MANY else paid
    lines = list(paid.groupby(["phase", "name"], sort=False))
    return [
        of_term(thinned(rows), called(phase, name, several), number, name)
        for number, ((phase, name), rows) in enumerate(lines)
    ]


def called(phase: str, name: str, several: bool) -> str:
    words = "loss" if name == "loss" else f"{name} term"
    return whole(f"{phase.capitalize()}, {words}" if several else words.capitalize())


def thinned(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.iloc[:: -(-len(rows) // MOST)] if len(rows) else rows


def of_term(rows: pd.DataFrame, name: str, number: int, term: str) -> go.Scatter:
    look = {"color": SERIES[number % len(SERIES)], "width": 2 if term == "loss" else 1}
    words = [
        f"step {count(row.step)}<br>{name.lower()} {row.value:.4g} nats"
        for row in rows.itertuples(index=False)
    ]
    return go.Scatter(
        x=rows.step,
        y=rows.value,
        mode="lines",
        line=look,
        name=name,
        hovertext=words,
        hoverinfo="text",
    )


def qualities(judged: pd.DataFrame) -> list[go.Scatter]:
    several = judged.phase.nunique() > 1
    lines = [
        of_quality(rows, phase, number, several)
        for number, (phase, rows) in enumerate(judged.groupby("phase", sort=False))
    ]
    if len(lines) > MANY:
        return [as_its_loss(line, number) for number, line in enumerate(lines)]
    return [
        *lines,
        *(best(rows) for _, rows in judged.groupby("phase", sort=False) if len(rows) > 1),
    ]


def as_its_loss(line: go.Scatter, number: int) -> go.Scatter:
    """Line in the color of its loss, without a legend entry."""
    color = SERIES[number % len(SERIES)]
    return line.update(showlegend=False, line_color=color, marker_color=color)


def of_quality(rows: pd.DataFrame, phase: str, number: int, several: bool) -> go.Scatter:
    color = COMPRESSED if not number else SERIES[number % len(SERIES)]
    look = {
        "line": {"color": color, "width": 2},
        "marker": {"color": color, "size": 7, "symbol": SYMBOLS[number % len(SYMBOLS)]},
    }
    name = (
        whole(f"{phase.capitalize()}, held out")
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
        **look,
    )


def best(rows: pd.DataFrame) -> go.Scatter:
    """The state that was kept: of equals the latest."""
    least = rows.name.iloc[0] == "perplexity"
    top = rows[rows.value == (rows.value.min() if least else rows.value.max())].iloc[-1:]
    look = {"color": HIGHLIGHT, "size": 14, "symbol": "circle-open", "line": {"width": 2}}
    words = [f"kept<br>{each}" for each in hover(top)]
    return go.Scatter(
        x=top.step,
        y=top.value,
        mode="markers",
        marker=look,
        name="Kept",
        yaxis="y2",
        hovertext=words,
        hoverinfo="text",
    )


def hover(rows: pd.DataFrame) -> list[str]:
    return [
        f"{whole(row.phase)}, step {count(row.step)}<br>{named(row.name, row.value)}"
        for row in rows.itertuples(index=False)
    ]


def named(name: str, value: float) -> str:
    return f"accuracy {percent(value)}" if name == "accuracy" else f"perplexity {value:.4g}"


def description(curves: pd.DataFrame) -> str:
    judged = curves[curves.name.isin(JUDGED)]
    if judged.empty:
        return f"{count(curves.step.max())} training steps."
    first, last = judged.iloc[0], judged.iloc[-1]
    return (
        f"In {count(curves.step.max())} training steps from {named(first['name'], first.value)} "
        f"to {named(last['name'], last.value)}."
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
