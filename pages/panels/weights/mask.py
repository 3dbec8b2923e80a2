"""Remaining weights of a layer by tile."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import percent
from pages.panels.panel import Panel
from pages.panels.theme import ORIGINAL, PERCENT, base_figure, message_figure, translucent


def mask(tiles: pd.DataFrame) -> go.Figure:
    """Rows of MaskRow of one layer."""
    if tiles.empty:
        return message_figure("No layer was pruned.")
    figure = base_figure(height=420).add_traces([tile_heatmap(tiles)])
    figure.update_xaxes(title_text="Input channel (column)", showgrid=False)
    return figure.update_yaxes(
        title_text="Output channel (row)", autorange="reversed", showgrid=False
    )


def tile_heatmap(tiles: pd.DataFrame) -> go.Heatmap:
    grid = tiles.pivot(index="row", columns="column", values="left")
    bar = {
        "orientation": "h",
        "thickness": 10,
        "y": 1,
        "yanchor": "bottom",
        "nticks": 5,
        "outlinewidth": 0,
        "tickformat": PERCENT,
    }
    hover = [
        [
            f"from row {row}, column {column}<br>{percent(value)} nonzero"
            for column, value in cells.items()
        ]
        for row, cells in grid.iterrows()
    ]
    style = {
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, translucent(ORIGINAL, 0.06)], [1, ORIGINAL]],
        "colorbar": bar,
    }
    return go.Heatmap(
        x=grid.columns, y=grid.index, z=grid.to_numpy(), hovertext=hover, hoverinfo="text", **style
    )


def description(tiles: pd.DataFrame) -> str:
    return (
        f"Between {percent(tiles.left.min())} and {percent(tiles.left.max())} of the weights of "
        "a tile are nonzero."
    )


MASK = Panel(
    question="Where in the layer are nonzero weights?",
    caption=(
        "Each tile is a block of adjacent weights, colored by the share that is nonzero. Vertical "
        "stripes are pruned inputs, horizontal stripes pruned outputs."
    ),
    draw=mask,
    describe=description,
)
