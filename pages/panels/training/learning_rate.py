"""Learning rate and throughput of a training."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import whole
from pages.formatting.numbers import count, significant
from pages.panels.panel import Panel
from pages.panels.theme import SERIES, frame, sentence
from pages.panels.training.training_curves import thinned

RATE, PACE = "rate", "examples per second"


def learning_pace(curves: pd.DataFrame) -> go.Figure:
    """Rows of CurveRow: the learning rate above, examples a second below."""
    rows = curves[curves.name.isin((RATE, PACE))]
    if rows.empty:
        return sentence("This run did not record learning rate and throughput.")
    figure, phases = frame(height=440), list(rows.groupby("phase", sort=False))
    for number, (phase, its) in enumerate(phases):
        figure.add_traces(
            [line(its[its.name == name], phase, number, name) for name in (RATE, PACE)]
        )
    figure.update_layout(showlegend=len(phases) > 1)
    below = {
        "title": {"text": "Examples per second (number)", "standoff": 14},
        "domain": [0, 0.42],
        "rangemode": "tozero",
    }
    above = {
        "domain": [0.58, 1],
        "title_text": "Learning rate (number)",
        "rangemode": "tozero",
        "exponentformat": "none",
    }
    figure.update_layout(yaxis=above, yaxis2=figure.layout.yaxis.to_plotly_json() | below)
    return figure.update_xaxes(title_text="Training steps (number)", anchor="y2")


def line(rows: pd.DataFrame, phase: str, number: int, name: str) -> go.Scatter:
    rows = thinned(rows)
    words = [
        f"{whole(phase)}, step {count(row.step)}<br>{name} {significant(row.value)}"
        for row in rows.itertuples(index=False)
    ]
    look = {
        "mode": "lines",
        "line": {"color": SERIES[number % len(SERIES)], "width": 1.5},
        "hovertext": words,
        "hoverinfo": "text",
    }
    return go.Scatter(
        x=rows.step,
        y=rows.value,
        name=whole(phase.capitalize()),
        showlegend=name == RATE,
        yaxis="y" if name == RATE else "y2",
        **look,
    )


def description(curves: pd.DataFrame) -> str:
    middle = curves[curves.name == PACE].groupby("phase", sort=False).value.median()
    paces = ", ".join(f"{phase} {significant(value)}" for phase, value in middle.items())
    highest = curves[curves.name == RATE].value.max()
    return (
        f"The learning rate reached {significant(highest)}; median examples per second: "
        f"{paces or 'not recorded'}."
    )


LEARNING_PACE = Panel(
    question="Learning rate and throughput",
    caption=(
        "The learning rate warms up over the first 5% of the steps and decays to zero as a half "
        "cosine. Throughput also depends on other load on the computer."
    ),
    draw=learning_pace,
    describe=description,
)
