"""The error of each layer under several runs."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import layer_axis, multiline_label
from pages.formatting.numbers import percent
from pages.panels.layers.layer_error import MAX_ROWS, error_title, hover
from pages.panels.panel import Panel
from pages.panels.theme import PERCENT, SERIES, SYMBOLS, base_figure, message_figure


def layer_error_side_by_side(layers: pd.DataFrame) -> go.Figure:
    """Rows of LayerRow with a column ``label``, one label per run; the first eight runs are
    drawn.
    """
    changed = layers.dropna(subset="relative_error", ignore_index=True)
    if changed.empty:
        return message_figure("None of these runs changed a layer.")
    names, labels = worst_names(changed), list(changed.label.unique())
    figure = base_figure(height=110 + 24 * len(names) + 20 * len(labels[: len(SERIES)]))
    figure.add_traces(
        [run_trace(changed, names, labels[i], i) for i in range(min(len(labels), len(SERIES)))]
    )
    figure.update_yaxes(layer_axis(names), categoryorder="array")
    title = error_title(len(names), changed.name.nunique()) + omitted_runs_note(labels)
    return figure.update_xaxes(title_text=title, tickformat=PERCENT, rangemode="tozero")


def run_trace(layers: pd.DataFrame, names: list[str], label: str, number: int) -> go.Scatter:
    rows = layers[(layers.label == label) & layers.name.isin(names)]
    marker = {"color": SERIES[number], "symbol": SYMBOLS[number], "size": 9}
    line = {"color": SERIES[number], "width": 1}
    text = [f"{multiline_label(label)}<br>{words}" for words in hover(rows)]
    return go.Scatter(
        y=rows.name,
        x=rows.relative_error,
        mode="lines+markers",
        marker=marker,
        line=line,
        name=multiline_label(label),
        hovertext=text,
        hoverinfo="text",
    )


def worst_names(layers: pd.DataFrame, max_rows: int = MAX_ROWS) -> list[str]:
    """Layers in model order; beyond ``max_rows``, those whose error under any run is largest."""
    worst = layers.groupby("name", sort=False).relative_error.max()
    keep = set(worst.nlargest(max_rows).index)
    return [name for name in worst.index if name in keep]


def omitted_runs_note(labels: list[str]) -> str:
    return f"<br>first {len(SERIES)} of {len(labels)} runs" if len(labels) > len(SERIES) else ""


def description(layers: pd.DataFrame) -> str:
    changed = layers.dropna(subset="relative_error", ignore_index=True)
    runs = f"{layers.label.nunique()} runs, {layers.name.nunique()} layers"
    if changed.empty:
        return f"{runs}."
    row = changed.loc[changed.relative_error.idxmax()]
    return (
        f"{runs}; the largest error is {percent(row.relative_error)}, {row['name']} under "
        f"{row.label}."
    )


LAYER_ERROR_SIDE_BY_SIDE = Panel(
    question="Do the runs affect the same layers?",
    caption=(
        "Each line is a run, each row a layer; further right means a larger change of the "
        "layer's weights (relative error, ‖W - Ŵ‖/‖W‖)."
    ),
    draw=layer_error_side_by_side,
    describe=description,
)
