"""Bytes of an uncompressed model by block and layer."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import plotly_text
from pages.formatting.numbers import count, megabytes
from pages.panels.panel import Panel
from pages.panels.theme import ORIGINAL, REFERENCE, TEXT_ON_COLOR, base_figure, message_figure

ROOT = "root"


def where_the_bytes_are(layers: pd.DataFrame) -> go.Figure:
    """Rows of LayerRow; layers tied to another are left out, because their bytes are counted
    there.
    """
    stored = layers[layers.tied_to == ""]
    if stored.empty:
        return message_figure("This model has no compressible layers.")
    figure = base_figure(height=420).update_layout(
        margin={"l": 0, "r": 0, "t": 0, "b": 0}, uniformtext={"minsize": 9, "mode": "hide"}
    )
    return figure.add_traces([tiles(stored)])


def tiles(layers: pd.DataFrame) -> go.Treemap:
    """Root, then blocks, then layers; ids are prefixed, because a block and a layer may share a
    name.
    """
    blocks = layers[layers.block != ""].groupby("block", sort=False).original_bytes.sum()
    ids = [ROOT, *(f"block {b}" for b in blocks.index), *(f"layer {n}" for n in layers.name)]
    parents = ["", *([ROOT] * len(blocks)), *(f"block {b}" if b else ROOT for b in layers.block)]
    values = [layers.original_bytes.sum(), *blocks, *layers.original_bytes]
    names = [
        "all layers",
        *map(plotly_text, blocks.index),
        *(name_within_block(row) for row in layers.itertuples()),
    ]
    paint = {
        "colors": [REFERENCE] * (1 + len(blocks)) + [ORIGINAL] * len(layers),
        "line": {"width": 1},
    }
    tree = {
        "ids": ids,
        "parents": parents,
        "values": values,
        "labels": names,
        "branchvalues": "total",
        "marker": paint,
    }
    return go.Treemap(
        **tree,
        **tile_texts(layers, blocks),
        pathbar={"visible": True, "thickness": 20},
        tiling={"pad": 2},
    )


def tile_texts(layers: pd.DataFrame, blocks: pd.Series) -> dict[str, Any]:
    """Text on the tiles, and on hover."""
    sizes = [
        megabytes(size) for size in (layers.original_bytes.sum(), *blocks, *layers.original_bytes)
    ]
    frames = [
        f"all layers<br>{sizes[0]}",
        *(f"<b>{plotly_text(name)}</b><br>{megabytes(size)}" for name, size in blocks.items()),
    ]
    on_tiles = {
        "text": sizes,
        "texttemplate": "%{label}<br>%{text}",
        "textfont": {"size": 12, "color": TEXT_ON_COLOR},
    }
    return {
        **on_tiles,
        "hovertext": [*frames, *map(hover, layers.itertuples(index=False))],
        "hoverinfo": "text",
    }


def hover(row: Any) -> str:
    shape = " x ".join(map(str, row.shape))
    return (
        f"<b>{plotly_text(row.name)}</b><br>{plotly_text(row.kind)}, "
        f"{shape}<br>{count(row.parameters)} "
        f"parameters<br>{megabytes(row.original_bytes)}"
    )


def name_within_block(row: Any) -> str:
    return plotly_text(row.name.removeprefix(f"{row.block}.") if row.block else row.name)


def description(layers: pd.DataFrame) -> str:
    stored = layers[layers.tied_to == ""]
    if stored.empty:
        return f"{len(layers)} layers."
    row = stored.iloc[stored.original_bytes.argmax()]
    return (
        f"{len(stored)} layers, {megabytes(stored.original_bytes.sum())}; the largest is "
        f"{row['name']} with {megabytes(row.original_bytes)}."
    )


WHERE_THE_BYTES_ARE = Panel(
    question="Where are the bytes of this model?",
    caption=(
        "Each tile is a layer; its area is its uncompressed size. Gray frames are blocks, and "
        "tied weights count once."
    ),
    draw=where_the_bytes_are,
    describe=description,
)
