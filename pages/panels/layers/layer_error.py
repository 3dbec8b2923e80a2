"""Change of each compressed layer, in the model's order."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import layer_axis, plotly_text, short_layer_name
from pages.formatting.numbers import count, megabytes, percent
from pages.panels.panel import Panel
from pages.panels.theme import ERROR, HIGHLIGHT, PERCENT, REFERENCE, base_figure, message_figure

MAX_ROWS = 40


def layer_error(layers: pd.DataFrame) -> go.Figure:
    """Rows of LayerRow. Unchanged layers are left out, and beyond 40 only the largest errors are
    drawn, as the axis title states.
    """
    changed = layers.dropna(subset="relative_error", ignore_index=True)
    if changed.empty:
        return message_figure("No layer was changed.")
    shown = worst_in_order(changed)
    figure = (
        base_figure(height=110 + 22 * len(shown))
        .update_layout(barmode="overlay", bargap=0.25)
        .add_traces(traces(shown))
    )
    figure.update_yaxes(layer_axis(shown.name), showgrid=False)
    return figure.update_xaxes(
        title_text=error_title(len(shown), len(changed)), tickformat=PERCENT, rangemode="tozero"
    )


def traces(layers: pd.DataFrame) -> list[go.Bar | go.Scatter]:
    is_worst = layers.index == ranking_error(layers).idxmax()
    both = [
        bars(layers[~is_worst], ERROR, "Weights"),
        bars(layers[is_worst], HIGHLIGHT, "Weights of the most affected layer"),
    ]
    return [*both, output_markers(layers)] if layers.output_error.notna().any() else both


def ranking_error(layers: pd.DataFrame) -> pd.Series:
    """Error that ranks the layers: of the output, or of the weights if no output was measured."""
    return layers.output_error if layers.output_error.notna().any() else layers.relative_error


def bars(layers: pd.DataFrame, color: str, name: str) -> go.Bar:
    style = {
        "orientation": "h",
        "marker": {"color": color},
        "name": name,
        "showlegend": not layers.empty,
    }
    return go.Bar(
        y=layers.name, x=layers.relative_error, hovertext=hover(layers), hoverinfo="text", **style
    )


def output_markers(layers: pd.DataFrame) -> go.Scatter:
    """Output error of the layers, if it was measured."""
    measured = layers.dropna(subset="output_error")
    marker = {
        "symbol": "diamond",
        "size": 8,
        "color": "#ffffff",
        "line": {"color": REFERENCE, "width": 2},
    }
    return go.Scatter(
        y=measured.name,
        x=measured.output_error,
        mode="markers",
        marker=marker,
        name="Output",
        hovertext=hover(measured),
        hoverinfo="text",
    )


def hover(layers: pd.DataFrame) -> list[str]:
    return [
        f"<b>{plotly_text(row.name)}</b><br>error of the weights "
        f"{percent(row.relative_error)}<br>error of the output {percent(row.output_error)}"
        f"<br>{count(row.parameters)} parameters, {row.bits_per_weight:.3g} bits each"
        f"{shape_change(row)}"
        f"<br>{megabytes(row.original_bytes)} → {megabytes(row.size_bytes)}"
        for row in layers.itertuples(index=False)
    ]


def shape_change(row: Any) -> str:
    """The shapes before and after, where they differ."""
    before, after = (" × ".join(map(str, shape)) for shape in (row.original_shape, row.shape))
    return f"<br>shape {before} → {after}" if before else ""


def worst_in_order(layers: pd.DataFrame, max_rows: int = MAX_ROWS) -> pd.DataFrame:
    return (
        layers.loc[
            ranking_error(layers)
            .fillna(layers.relative_error)
            .nlargest(max_rows)
            .index.sort_values()
        ]
        if len(layers) > max_rows
        else layers
    )


def error_title(shown: int, total: int) -> str:
    return "Relative error (%)" + (f"<br>{shown} worst of {total} layers" if shown < total else "")


def description(layers: pd.DataFrame) -> str:
    changed = layers.dropna(subset="relative_error", ignore_index=True)
    if changed.empty:
        return f"All {len(layers)} layers are unchanged."
    worst = ranking_error(changed).idxmax()
    return (
        f"{len(changed)} of {len(layers)} layers changed; the worst is "
        f"{short_layer_name(changed['name'][worst], 80)} at "
        f"{percent(ranking_error(changed)[worst])}."
    )


LAYER_ERROR = Panel(
    question="Which layers are most affected?",
    caption=(
        "Bars show the change of the weights (relative error, ‖W - Ŵ‖/‖W‖). Diamonds, where "
        "measured, show the change of the layer's output on calibration inputs of the original "
        "model (output error, ‖WX - ŴX̂‖/‖WX‖, with quantized inputs X̂ if the method quantizes "
        "them)."
    ),
    draw=layer_error,
    describe=description,
)
