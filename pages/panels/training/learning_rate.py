"""Learning rate and throughput of a training."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import plotly_text
from pages.formatting.numbers import count, short_number
from pages.panels.panel import Panel
from pages.panels.theme import SERIES, base_figure, message_figure
from pages.panels.training.training_curves import downsampled_rows

RATE, EXAMPLES_PER_SECOND = "rate", "examples per second"


def learning_rate(curves: pd.DataFrame) -> go.Figure:
    """Rows of CurveRow: learning rate above, examples per second below."""
    rows = curves[curves.name.isin((RATE, EXAMPLES_PER_SECOND))]
    if rows.empty:
        return message_figure("This run did not record learning rate and throughput.")
    figure, phases = base_figure(height=440), list(rows.groupby("phase", sort=False))
    for number, (phase, phase_rows) in enumerate(phases):
        figure.add_traces(
            [
                phase_line(phase_rows[phase_rows.name == name], phase, number, name)
                for name in (RATE, EXAMPLES_PER_SECOND)
            ]
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


def phase_line(rows: pd.DataFrame, phase: str, number: int, name: str) -> go.Scatter:
    rows = downsampled_rows(rows)
    words = [
        f"{plotly_text(phase)}, step {count(row.step)}<br>{name} {short_number(row.value)}"
        for row in rows.itertuples(index=False)
    ]
    style = {
        "mode": "lines",
        "line": {"color": SERIES[number % len(SERIES)], "width": 1.5},
        "hovertext": words,
        "hoverinfo": "text",
    }
    return go.Scatter(
        x=rows.step,
        y=rows.value,
        name=plotly_text(phase.capitalize()),
        showlegend=name == RATE,
        yaxis="y" if name == RATE else "y2",
        **style,
    )


def description(curves: pd.DataFrame) -> str:
    middle = curves[curves.name == EXAMPLES_PER_SECOND].groupby("phase", sort=False).value.median()
    throughputs = ", ".join(f"{phase} {short_number(value)}" for phase, value in middle.items())
    highest = curves[curves.name == RATE].value.max()
    return (
        f"The learning rate reached {short_number(highest)}; median examples per second: "
        f"{throughputs or 'not recorded'}."
    )


LEARNING_RATE = Panel(
    question="Learning rate and throughput",
    caption=(
        "The learning rate warms up over the first 5% of the steps and decays to zero as a half "
        "cosine. Throughput also depends on other load on the computer."
    ),
    draw=learning_rate,
    describe=description,
)
