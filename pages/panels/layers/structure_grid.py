"""Kept heads by block."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import layer_axis, plotly_text
from pages.formatting.numbers import short_number
from pages.panels.panel import Panel
from pages.panels.theme import HIGHLIGHT, ORIGINAL, base_figure, message_figure, translucent


def structure_grid(rows: pd.DataFrame) -> go.Figure:
    """Rows of StructureRow: a row for each block, a column for each head; darker is more
    important.
    """
    if rows.empty:
        return message_figure("No heads were scored in this run.")
    blocks = rows.block.drop_duplicates().tolist()
    figure = base_figure(height=190 + 32 * len(blocks)).add_traces(
        [tiles(rows, blocks), removed_markers(rows[~rows.kept])]
    )
    title = f"{plotly_text(rows.what.iloc[0].capitalize())} (number)"
    figure.update_xaxes(
        title_text=title,
        title_standoff=32,
        showgrid=False,
        dtick=max(1, (rows["index"].max() + 1) // 12),
    )
    return figure.update_yaxes(layer_axis(blocks), showgrid=False)


def tiles(rows: pd.DataFrame, blocks: list[str]) -> go.Heatmap:
    """Scores relative to the largest of each block, so that every row has its own scale."""
    shown = rows.assign(
        relative_score=rows.score / rows.groupby("block").score.transform("max").clip(lower=1e-30)
    )
    grid = shown.pivot(index="block", columns="index", values="relative_score").loc[blocks]
    words = shown.assign(words=[hover(row) for row in shown.itertuples(index=False)])
    texts = words.pivot(index="block", columns="index", values="words").loc[blocks]
    bar = {
        "orientation": "h",
        "thickness": 10,
        "y": 1,
        "yanchor": "bottom",
        "nticks": 4,
        "outlinewidth": 0,
        "tickformat": ".0%",
    }
    style = {
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, translucent(ORIGINAL, 0.06)], [1, ORIGINAL]],
        "colorbar": bar,
        "xgap": 2,
        "ygap": 2,
    }
    return go.Heatmap(
        x=grid.columns,
        y=blocks,
        z=grid.to_numpy(),
        hovertext=texts.to_numpy(),
        hoverinfo="text",
        **style,
    )


def hover(row: Any) -> str:
    return (
        f"<b>{plotly_text(row.block)}</b><br>{plotly_text(row.what)} {row[2]}: "
        f"{'kept' if row.kept else 'removed'}<br>score {short_number(row.score)}"
    )


def removed_markers(removed: pd.DataFrame) -> go.Scatter:
    marker = {"symbol": "x", "size": 11, "color": HIGHLIGHT}
    words = [hover(row) for row in removed.itertuples(index=False)]
    return go.Scatter(
        x=removed["index"],
        y=removed.block,
        mode="markers",
        marker=marker,
        name="Removed",
        hovertext=words,
        hoverinfo="text",
        showlegend=False,
    )


def description(rows: pd.DataFrame) -> str:
    removed = int((~rows.kept).sum())
    kind, blocks = rows.what.iloc[0], rows.block.nunique()
    return f"{removed} of {len(rows)} {kind}s in {blocks} blocks were removed."


STRUCTURE_GRID = Panel(
    question="Which heads were kept?",
    caption=(
        "A row for each block, a tile for each head or group of heads that share keys and values. "
        "Color is the score relative to the block's highest; crosses mark removed heads."
    ),
    draw=structure_grid,
    describe=description,
)
