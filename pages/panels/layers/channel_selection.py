"""Input channels that three selection criteria would keep."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.panels.panel import Panel
from pages.panels.theme import (
    COMPRESSED,
    ORIGINAL,
    REFERENCE,
    SERIES,
    base_figure,
    message_figure,
    translucent,
)

CRITERIA = {
    "by_activations": ("by activation", COMPRESSED, "circle"),
    "by_weights": ("by weight", ORIGINAL, "square"),
    "at_random": ("at random", SERIES[2], "x"),
}


def channel_selection(channels: pd.DataFrame) -> go.Figure:
    """Rows of CriterionRow."""
    if channels.empty:
        return message_figure("No channels to show.")
    unselected = channels[~channels[[*CRITERIA]].any(axis=1)]
    quiet = {"color": translucent(REFERENCE, 0.45), "size": 6}
    figure = base_figure(height=400).add_traces([dots(unselected, "not chosen", quiet)])
    figure.add_traces(
        [
            dots(channels[channels[criterion]], name, {"color": c, "symbol": s, "size": 11})
            for criterion, (name, c, s) in CRITERIA.items()
        ]
    )
    figure.update_xaxes(title_text="Channel weights (norm)")
    return figure.update_yaxes(title_text="Channel input (mean |x|)", rangemode="tozero")


def dots(channels: pd.DataFrame, name: str, marker: dict[str, Any]) -> go.Scatter:
    hover = [
        f"column {row.column}, {name}<br>mean |x| {row.activation:.3g}, norm {row.weight:.3g}"
        for row in channels.itertuples(index=False)
    ]
    return go.Scatter(
        x=channels.weight,
        y=channels.activation,
        mode="markers",
        marker=marker,
        name=name,
        hovertext=hover,
        hoverinfo="text",
    )


def description(channels: pd.DataFrame) -> str:
    both = (channels.by_activations & channels.by_weights).sum()
    return (
        f"{channels.by_activations.sum()} of {len(channels)} channels are chosen by activation; "
        f"{both} of these are also chosen by weight."
    )


CHANNEL_SELECTION = Panel(
    question="Which 1% of the channels does each criterion keep?",
    caption=(
        "Each dot is an input channel of the layer, by the size of its weights (x) and the "
        "strength of its inputs (y). Strong inputs and large weights are rarely the same channels."
    ),
    draw=channel_selection,
    describe=description,
)
