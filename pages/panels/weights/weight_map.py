"""Heat map of single weights in a square of a layer."""

import pandas as pd
import plotly.graph_objects as go

from pages.panels.panel import Panel
from pages.panels.theme import (
    COMPRESSED,
    HIGHLIGHT,
    ORIGINAL,
    REFERENCE,
    base_figure,
    message_figure,
    translucent,
)

# zero has the color of the page's background, in light and dark mode
DIVERGING = [[0, ORIGINAL], [0.5, translucent(REFERENCE, 0.1)], [1, COMPRESSED]]
VALUE_NAMES = {"original": "Original", "stored": "Compressed", "error": "Error"}
COLOR_RANGE_SHARE = 0.98  # share of the weights within the color range


def weight_map(
    piece: pd.DataFrame, shown: str = "original", chosen: tuple[int, int] | None = None
) -> go.Figure:
    """Rows of MapRow. Invisible markers over the tiles receive hover and click events, which heat
    maps do not in all cases.
    """
    if piece.empty:
        return message_figure("No weights to show.")
    values = piece.assign(error=piece.stored - piece.original)
    figure = base_figure(height=470).add_traces([tiles(values, shown), click_targets(values)])
    if chosen:
        row, column = chosen
        edge = {
            "line": {"color": HIGHLIGHT, "width": 2.5},
            "x0": column - 0.5,
            "x1": column + 0.5,
            "y0": row - 0.5,
            "y1": row + 0.5,
        }
        figure.add_shape(type="rect", **edge)
    figure.update_layout(dragmode=False)
    figure.update_xaxes(
        title_text="Column (input)",
        showgrid=False,
        fixedrange=True,
        range=[piece.column.min() - 0.5, piece.column.max() + 0.5],
    )
    return figure.update_yaxes(
        title_text="Row (output)",
        showgrid=False,
        fixedrange=True,
        range=[piece.row.max() + 0.5, piece.row.min() - 0.5],
    )


def tiles(values: pd.DataFrame, shown: str) -> go.Heatmap:
    grid = values.pivot(index="row", columns="column", values=shown)
    bar = {
        "orientation": "h",
        "thickness": 10,
        "y": 1,
        "yanchor": "bottom",
        "nticks": 5,
        "outlinewidth": 0,
    }
    end = float(values[shown].abs().quantile(COLOR_RANGE_SHARE)) or 1.0
    style = {
        "zmin": -end,
        "zmax": end,
        "colorscale": DIVERGING,
        "colorbar": bar,
        "hoverinfo": "skip",
    }
    return go.Heatmap(z=grid.to_numpy(), x=grid.columns, y=grid.index, **style)


def click_targets(values: pd.DataFrame) -> go.Scatter:
    unseen = {"opacity": 0}
    return go.Scatter(
        x=values.column,
        y=values.row,
        mode="markers",
        marker=unseen | {"size": 10},
        selected={"marker": unseen},
        unselected={"marker": unseen},
        hovertext=hover(values),
        hoverinfo="text",
        showlegend=False,
    )


def hover(values: pd.DataFrame) -> list[str]:
    return [
        (
            f"row {row.row}, column {row.column}<br>{row.original:.4g} → "
            f"{row.stored:.4g}<br>error {row.error:+.2g}"
        )
        for row in values.itertuples(index=False)
    ]


def description(piece: pd.DataFrame) -> str:
    return (
        f"Rows {piece.row.min()} to {piece.row.max()}, columns {piece.column.min()} to "
        f"{piece.column.max()}; weights between {piece.original.min():.3g} and "
        f"{piece.original.max():.3g}."
    )


WEIGHT_MAP = Panel(
    question="What is the value of each weight?",
    caption=(
        "Each tile is a weight of the layer: blue below zero, orange above; the largest 2% share "
        "the full color. Click one for details."
    ),
    draw=weight_map,
    describe=description,
)
