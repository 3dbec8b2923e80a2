"""A layer's matrix, its reconstruction from the factors, and the difference, as heat maps."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import percent
from pages.panels.panel import Panel
from pages.panels.theme import AXIS, base_figure, message_figure
from pages.panels.weights.weight_map import DIVERGING

VERSIONS = {"original": "Original", "rebuilt": "Reconstruction", "missing": "Difference"}
COLOR_RANGE_SHARE = 0.98  # share of the original's tiles within the color range
GAP = 0.03


def reconstruction(tiles: pd.DataFrame) -> go.Figure:
    """Rows of TileRow."""
    if tiles.empty:
        return message_figure("No matrix to show.")
    end = float(tiles.value[tiles.version == "original"].abs().quantile(COLOR_RANGE_SHARE)) or 1.0
    figure = base_figure(height=360).add_traces(
        [version_heatmap(tiles, version, index, end) for index, version in enumerate(VERSIONS)]
    )
    figure.update_layout(
        margin={"t": 36},
        dragmode=False,
        **{
            f"xaxis{index + 1 if index else ''}": column_axis(index)
            for index in range(len(VERSIONS))
        },
    )
    for index, name in enumerate(VERSIONS.values()):
        figure.add_annotation(
            text=name,
            x=sum(domain(index)) / 2,
            y=1,
            xref="paper",
            yref="paper",
            xanchor="center",
            yanchor="bottom",
            showarrow=False,
        )
    return figure.update_yaxes(
        title_text="Row (output)", autorange="reversed", showgrid=False, fixedrange=True
    )


def version_heatmap(tiles: pd.DataFrame, version: str, index: int, end: float) -> go.Heatmap:
    grid = tiles[tiles.version == version].pivot(index="row", columns="column", values="value")
    hover = [
        [
            f"{VERSIONS[version]}<br>from row {row}, column {column}<br>mean {value:+.3g}"
            for column, value in cells.items()
        ]
        for row, cells in grid.iterrows()
    ]
    style = {"zmin": -end, "zmax": end, "colorscale": DIVERGING, "showscale": False}
    axis = {"xaxis": f"x{index + 1}"} if index else {}
    return go.Heatmap(
        z=grid.to_numpy(),
        x=grid.columns,
        y=grid.index,
        hovertext=hover,
        hoverinfo="text",
        **style,
        **axis,
    )


def domain(index: int) -> list[float]:
    width = (1 - GAP * (len(VERSIONS) - 1)) / len(VERSIONS)
    return [index * (width + GAP), index * (width + GAP) + width]


def column_axis(index: int) -> dict[str, Any]:
    title = AXIS["title"] | {"text": "Column (input)"}
    return AXIS | {
        "domain": domain(index),
        "anchor": "y",
        "title": title,
        "showgrid": False,
        "fixedrange": True,
        "nticks": 4,
    }


def description(tiles: pd.DataFrame) -> str:
    original, missing = (
        tiles.value[tiles.version == version].pow(2).sum() for version in ("original", "missing")
    )
    return (
        f"{(tiles.version == 'original').sum()} tiles; the difference has "
        f"{percent((missing / max(original, 1e-30)) ** 0.5)} of the original's norm."
    )


RECONSTRUCTION = Panel(
    question="What does the product of the factors look like?",
    caption=(
        "Each tile is the mean of adjacent weights, blue below zero and orange above, with the "
        "same color scale in all three: the original, the product of the factors "
        "(reconstruction), and the difference."
    ),
    draw=reconstruction,
    describe=description,
)
