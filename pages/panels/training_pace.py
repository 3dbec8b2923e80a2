"""How quick training was in each precision."""

import pandas as pd
import plotly.graph_objects as go

from pages.panels.numbers import significant
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, ORIGINAL, frame, sentence


def training_pace(curves: pd.DataFrame) -> go.Figure:
    """Rows of CurveRow: examples a second, a bar for each phase."""
    paces = pace(curves)
    if paces.empty:
        return sentence("The pace of this training was not measured.")
    words = [f"{phase}<br>{significant(value)} examples a second" for phase, value in paces.items()]
    colours = [ORIGINAL if phase == "float32" else COMPRESSED for phase in paces.index]
    figure = frame(height=110 + 34 * len(paces)).add_bar(
        y=paces.index, x=paces, orientation="h", marker_color=colours, hovertext=words, hoverinfo="text"
    )
    return figure.update_yaxes(autorange="reversed", showgrid=False).update_xaxes(title_text="Examples a second (number)")


def pace(curves: pd.DataFrame) -> pd.Series:
    """By the last look, of all steps until then."""
    return curves[curves.name == "examples per second"].groupby("phase", sort=False).value.last()


def description(curves: pd.DataFrame) -> str:
    return "Examples a second: " + ", ".join(f"{phase} {significant(value)}" for phase, value in pace(curves).items()) + "."


TRAINING_PACE = Panel(
    question="How quick was each precision here?",
    caption="Shorter numbers are quicker only where the processor has arithmetic for them; with small batches, casting can cost more than it saves.",
    draw=training_pace,
    describe=description,
)
