"""Range of each input channel and its weights, before and after."""

import pandas as pd
import plotly.graph_objects as go

from pages.panels.panel import Panel
from pages.panels.theme import AXIS, COMPRESSED, ORIGINAL, base_figure, message_figure, translucent


def input_ranges(columns: pd.DataFrame) -> go.Figure:
    """Rows of ReachRow, drawn in their order: inputs above, weights below."""
    if columns.empty:
        return message_figure("No inputs to show.")
    columns = columns.reset_index(drop=True)
    figure = base_figure(height=460).update_layout(barmode="overlay", bargap=0)
    figure.add_traces(
        [*before_and_after(columns, "input", "y"), *before_and_after(columns, "weight", "y2")]
    )
    lower = AXIS | {
        "domain": [0, 0.44],
        "anchor": "x",
        "rangemode": "tozero",
        "title": {"text": "Weights (max |w|)"},
    }
    figure.update_layout(
        yaxis={"domain": [0.54, 1], "title": {"text": "Inputs (max |x|)"}},
        yaxis2=lower,
        xaxis={"anchor": "y2"},
    )
    return figure.update_xaxes(title_text="Input channels, strongest first (rank)", showgrid=False)


def before_and_after(columns: pd.DataFrame, quantity: str, axis: str) -> list[go.Bar | go.Scatter]:
    shared = {
        "x": columns.index,
        "yaxis": axis,
        "hovertext": hover(columns),
        "hoverinfo": "text",
        "showlegend": quantity == "input",
    }
    after = go.Bar(
        y=columns[f"{quantity}_after"],
        marker={"color": translucent(COMPRESSED, 0.85), "line": {"width": 0}},
        name="After",
        **shared,
    )
    outline = {"mode": "lines", "line": {"color": ORIGINAL, "width": 2, "shape": "hvh"}}
    return [after, go.Scatter(y=columns[f"{quantity}_before"], name="Before", **outline, **shared)]


def hover(columns: pd.DataFrame) -> list[str]:
    return [
        f"column {row.column}<br>inputs up to {row.input_before:.3g} → {row.input_after:.3g}"
        f"<br>weights up to {row.weight_before:.3g} → {row.weight_after:.3g}"
        for row in columns.itertuples(index=False)
    ]


def description(columns: pd.DataFrame) -> str:
    before, after = columns.input_before.max(), columns.input_after.max()
    return (
        f"{len(columns)} input columns; the strongest input goes from {before:.3g} to {after:.3g}."
    )


INPUT_RANGES = Panel(
    question="Ranges of inputs and weights before and after",
    caption=(
        "Each position is an input channel of the layer. Blue lines are the original ranges of "
        "its inputs and, below, its weights; orange bars are what the quantized layer multiplies. "
        "One range for all inputs must cover the largest."
    ),
    draw=input_ranges,
    describe=description,
)
