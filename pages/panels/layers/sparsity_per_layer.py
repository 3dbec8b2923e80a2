"""Removed share of each layer, and the bytes it saved."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import layer_axis, plotly_text, short_layer_name
from pages.formatting.numbers import count, megabytes, percent
from pages.panels.layers.layer_error import worst_in_order
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, PERCENT, REFERENCE, base_figure, message_figure


def sparsity_per_layer(layers: pd.DataFrame) -> go.Figure:
    """Rows of LayerRow; kept layers are left out, and beyond 40 only those with the largest errors
    are drawn.
    """
    pruned = layers.dropna(subset="sparsity", ignore_index=True)
    if pruned.empty:
        return message_figure("No layer was pruned.")
    shown = worst_in_order(pruned)
    figure = (
        base_figure(height=110 + 22 * len(shown))
        .update_layout(bargap=0.25)
        .add_traces([sparsity_bars(shown), saved_bytes_markers(shown)])
    )
    figure.update_yaxes(layer_axis(shown.name), showgrid=False)
    title = "Share of the layer (%)" + (
        f"<br>{len(shown)} worst of {len(pruned)} layers" if len(shown) < len(pruned) else ""
    )
    return figure.update_xaxes(title_text=title, tickformat=PERCENT, rangemode="tozero")


def sparsity_bars(layers: pd.DataFrame) -> go.Bar:
    style = {"orientation": "h", "marker": {"color": COMPRESSED}, "name": "Zero weights"}
    return go.Bar(
        y=layers.name, x=layers.sparsity, hovertext=hover(layers), hoverinfo="text", **style
    )


def saved_bytes_markers(layers: pd.DataFrame) -> go.Scatter:
    marker = {
        "symbol": "diamond",
        "size": 8,
        "color": "#ffffff",
        "line": {"color": REFERENCE, "width": 2},
    }
    return go.Scatter(
        y=layers.name,
        x=share_saved(layers),
        mode="markers",
        marker=marker,
        name="Bytes saved",
        hovertext=hover(layers),
        hoverinfo="text",
    )


def share_saved(layers: pd.DataFrame) -> pd.Series:
    return 1 - layers.size_bytes / layers.original_bytes


def hover(layers: pd.DataFrame) -> list[str]:
    return [
        f"<b>{plotly_text(row.name)}</b><br>{percent(row.sparsity)} of {count(row.parameters)} "
        "weights "
        "are zero<br>"
        f"{megabytes(row.original_bytes)} → {megabytes(row.size_bytes)}"
        for row in layers.itertuples(index=False)
    ]


def description(layers: pd.DataFrame) -> str:
    pruned = layers.dropna(subset="sparsity", ignore_index=True)
    if pruned.empty:
        return f"All {len(layers)} layers are unchanged."
    sparsest = pruned.sparsity.idxmax()
    fewer = 1 - pruned.size_bytes.sum() / pruned.original_bytes.sum()
    extremes = (
        f"{short_layer_name(pruned['name'][sparsest], 80)} is sparsest, "
        f"{percent(pruned.sparsity[sparsest])}"
    )
    return f"{extremes}; all pruned layers together take {percent(fewer)} fewer bytes."


SPARSITY_PER_LAYER = Panel(
    question="Sparsity and bytes saved per layer",
    caption=(
        "Bars show the share of zero weights (sparsity), diamonds the share of bytes saved. "
        "Positions of nonzero weights cost bytes too, so diamonds are usually left of their bars, "
        "unless values are stored in a shorter format."
    ),
    draw=sparsity_per_layer,
    describe=description,
)
