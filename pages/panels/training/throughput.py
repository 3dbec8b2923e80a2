"""Training throughput in each precision."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import plotly_text
from pages.formatting.numbers import short_number
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, ORIGINAL, base_figure, message_figure


def throughput(curves: pd.DataFrame) -> go.Figure:
    """Rows of CurveRow: examples per second, a bar for each phase."""
    throughputs = examples_per_second(curves)
    if throughputs.empty:
        return message_figure("Training throughput was not measured.")
    words = [
        f"{plotly_text(phase)}<br>{short_number(value)} examples per second"
        for phase, value in throughputs.items()
    ]
    colors = [ORIGINAL if phase == "float32" else COMPRESSED for phase in throughputs.index]
    figure = base_figure(height=110 + 34 * len(throughputs)).add_bar(
        y=[plotly_text(phase) for phase in throughputs.index],
        x=throughputs,
        orientation="h",
        marker_color=colors,
        hovertext=words,
        hoverinfo="text",
    )
    return figure.update_yaxes(autorange="reversed", showgrid=False).update_xaxes(
        title_text="Examples per second (number)"
    )


def examples_per_second(curves: pd.DataFrame) -> pd.Series:
    """Throughput of all steps up to the last evaluation."""
    return curves[curves.name == "examples per second"].groupby("phase", sort=False).value.last()


def description(curves: pd.DataFrame) -> str:
    return (
        "Examples per second: "
        + ", ".join(
            f"{phase} {short_number(value)}" for phase, value in examples_per_second(curves).items()
        )
        + "."
    )


THROUGHPUT = Panel(
    question="Training speed of each precision",
    caption=(
        "Shorter number formats are faster only on processors with arithmetic for them; with "
        "small batches, casting can cost more than it saves."
    ),
    draw=throughput,
    describe=description,
)
