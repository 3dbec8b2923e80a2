"""Size of all pruned layers in each storage format."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import megabytes, percent
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, ORIGINAL, REFERENCE, base_figure, message_figure

FORMATS = {
    "dense": "Dense (zeros stored)",
    "bitmask": "Bitmask and values",
    "csr": "Compressed rows (CSR)",
    "n-of-m": "N:M positions",
}


def storage(rows: pd.DataFrame) -> go.Figure:
    """Rows of StorageRow. Formats that are not possible for some layer are left out."""
    if rows.empty:
        return message_figure("No layer was pruned.")
    sums = size_by_format(rows)
    figure = (
        base_figure(height=110 + 42 * len(sums)).update_layout(bargap=0.35).add_traces([bars(sums)])
    )
    named = {
        "tickmode": "array",
        "tickvals": list(sums.index),
        "ticktext": [format_label(storage_format, row) for storage_format, row in sums.iterrows()],
    }
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False, **named)
    return figure.update_xaxes(
        title_text="Size of the pruned layers (bytes)",
        exponentformat="SI",
        ticksuffix="B",
        nticks=5,
        rangemode="tozero",
    )


def format_label(storage_format: str, row: pd.Series) -> str:
    return f"{FORMATS[storage_format]}<br>{megabytes(row.size_bytes)}" + (
        f", {row.chosen} of {row.layers} layers" if row.chosen else ""
    )


def size_by_format(rows: pd.DataFrame) -> pd.DataFrame:
    """Bytes of all layers in each format, and the number of layers stored in it."""
    sums = rows.groupby("way", sort=False).agg(
        size_bytes=("size_bytes", "sum"), layers=("layer", "size"), chosen=("chosen", "sum")
    )
    return sums[sums.layers == rows.layer.nunique()]


def bars(sums: pd.DataFrame) -> go.Bar:
    paint = [
        COMPRESSED if row.chosen else ORIGINAL if storage_format == "dense" else REFERENCE
        for storage_format, row in sums.iterrows()
    ]
    hover = [
        (
            f"<b>{FORMATS[storage_format]}</b><br>{megabytes(row.size_bytes)}<br>"
            f"{percent(row.size_bytes / sums.size_bytes['dense'])} of dense"
        )
        for storage_format, row in sums.iterrows()
    ]
    style = {
        "orientation": "h",
        "marker": {"color": paint},
        "hovertext": hover,
        "hoverinfo": "text",
    }
    return go.Bar(y=list(sums.index), x=sums.size_bytes, showlegend=False, **style)


def description(rows: pd.DataFrame) -> str:
    sums = size_by_format(rows)
    smallest = sums.size_bytes.idxmin()
    return (
        f"{FORMATS[smallest]} is the smallest, {megabytes(sums.size_bytes[smallest])}; dense takes "
        f"{megabytes(sums.size_bytes['dense'])}."
    )


STORAGE = Panel(
    question="Which storage format is the smallest?",
    caption=(
        "Size of the same weights in each format; zeros save nothing in dense storage. Orange "
        "marks the formats used, with the number of layers."
    ),
    draw=storage,
    describe=description,
)
