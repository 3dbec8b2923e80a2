"""Training throughput in each precision."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import whole
from pages.formatting.numbers import significant
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, ORIGINAL, frame, sentence


def training_pace(curves: pd.DataFrame) -> go.Figure:
    """Rows of CurveRow: examples a second, a bar for each phase."""
    paces = pace(curves)
    if paces.empty:
        return sentence("Training throughput was not measured.")
    words = [
        f"{whole(phase)}<br>{significant(value)} examples per second"
        for phase, value in paces.items()
    ]
    colors = [ORIGINAL if phase == "float32" else COMPRESSED for phase in paces.index]
    figure = frame(height=110 + 34 * len(paces)).add_bar(
        y=[whole(phase) for phase in paces.index],
        x=paces,
        orientation="h",
        marker_color=colors,
        hovertext=words,
        hoverinfo="text",
    )
    return figure.update_yaxes(autorange="reversed", showgrid=False).update_xaxes(
        title_text="Examples per second (number)"
    )


def pace(curves: pd.DataFrame) -> pd.Series:
    """Throughput of all steps up to the last evaluation."""
    return curves[curves.name == "examples per second"].groupby("phase", sort=False).value.last()


def description(curves: pd.DataFrame) -> str:
    return (
        "Examples per second: "
        + ", ".join(f"{phase} {significant(value)}" for phase, value in pace(curves).items())
        + "."
    )


TRAINING_PACE = Panel(
    question="Training speed of each precision",
    caption=(
        "Shorter number formats are faster only on processors with arithmetic for them; with "
        "small batches, casting can cost more than it saves."
    ),
    draw=training_pace,
    describe=description,
)
