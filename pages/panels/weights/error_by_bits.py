"""One layer at every number of bits."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import percent
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, PERCENT, REFERENCE, base_figure, message_figure


def error_by_bits(settings: pd.DataFrame) -> go.Figure:
    """Rows of BitsRow."""
    if settings.empty:
        return message_figure("No bit widths were tried.")
    figure = base_figure(height=340).add_traces([error_curve(settings)])
    figure.update_xaxes(title_text="Bits per weight (number)", dtick=1)
    return figure.update_yaxes(
        title_text="Relative error (%, log)", type="log", tickformat=PERCENT, dtick="D2"
    )


def error_curve(settings: pd.DataFrame) -> go.Scatter:
    hover = [
        f"{row.bits} bits, {row.bits_per_weight:.2f} with scales<br>relative error "
        f"{percent(row.relative_error)}"
        f"<br>{'a candidate' if row.allowed else 'not a candidate'}"
        for row in settings.itertuples(index=False)
    ]
    marker = {
        "size": 13,
        "color": [COMPRESSED if allowed else REFERENCE for allowed in settings.allowed],
    }
    line = {"color": REFERENCE, "width": 1}
    return go.Scatter(
        x=settings.bits,
        y=settings.relative_error,
        mode="lines+markers",
        marker=marker,
        line=line,
        hovertext=hover,
        hoverinfo="text",
        showlegend=False,
    )


def description(settings: pd.DataFrame) -> str:
    ends = settings.sort_values("bits").relative_error
    return (
        f"From {percent(ends.iloc[0])} at {settings.bits.min()} bits to {percent(ends.iloc[-1])} "
        f"at {settings.bits.max()}."
    )


ERROR_BY_BITS = Panel(
    question="How does the error of this layer depend on the bits?",
    caption=(
        "Relative error of the layer's weights for each number of bits; orange marks the "
        "candidates of this layer. Each extra bit about halves the error; layers differ in how "
        "sensitive the model is to it."
    ),
    draw=error_by_bits,
    describe=description,
)
