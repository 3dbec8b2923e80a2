"""Bytes of the file by part."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import plotly_text
from pages.formatting.numbers import megabytes, percent
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, ORIGINAL, REFERENCE, base_figure, message_figure

# in file order of importance: what carries the weights, then what it takes to read them, then the
# rest
COLORS = {
    "codes": COMPRESSED,
    "dense weights": ORIGINAL,
    "norms and biases": REFERENCE,
    "file headers": REFERENCE,
}
OVERHEAD = "#109a72"  # scales, zero points, absmax, codebooks ...


def size_ledger(ledger: pd.DataFrame) -> go.Figure:
    """Rows of LedgerRow as a waterfall: each part starts where the one above it ends, so the last
    one ends at the file's size.
    """
    nonzero = ledger[ledger.size_bytes > 0]
    if nonzero.empty:
        return message_figure("No bytes have been counted yet.")
    parts = bytes_by_part(nonzero)
    total = parts.sum()
    figure = (
        base_figure(height=90 + 42 * len(parts))
        .add_traces([part_bars(parts)])
        .update_layout(bargap=0.35)
    )
    labels = [
        f"{plotly_text(part)}<br>{megabytes(size)}, {percent(size / total)}"
        for part, size in parts.items()
    ]
    figure.update_yaxes(
        type="category",
        autorange="reversed",
        showgrid=False,
        tickmode="array",
        tickvals=list(parts.index),
        ticktext=labels,
    )
    return figure.update_xaxes(
        title_text=f"Bytes (all parts together: {megabytes(total)})",
        exponentformat="SI",
        ticksuffix="B",
        nticks=5,
    )


def part_bars(parts: pd.Series) -> go.Bar:
    hover = [
        (
            f"<b>{plotly_text(part)}</b><br>{megabytes(size)} ({size:,} "
            f"bytes)<br>{percent(size / parts.sum())} of the files"
        )
        for part, size in parts.items()
    ]
    paint = {"color": [COLORS.get(part, OVERHEAD) for part in parts.index]}
    style = {
        "orientation": "h",
        "marker": paint,
        "hovertext": hover,
        "hoverinfo": "text",
        "showlegend": False,
    }
    return go.Bar(y=parts.index, x=parts, base=parts.cumsum() - parts, **style)


def bytes_by_part(ledger: pd.DataFrame) -> pd.Series:
    """Summed over layers, largest first."""
    return ledger.groupby("part", sort=False).size_bytes.sum().sort_values(ascending=False)


def description(ledger: pd.DataFrame) -> str:
    parts = bytes_by_part(ledger)
    return (
        f"{megabytes(parts.sum())} in {len(parts)} parts; the largest is {parts.index[0]} with "
        f"{megabytes(parts.iloc[0])}."
    )


SIZE_LEDGER = Panel(
    question="What are the bytes used for?",
    caption="Each bar starts where the one above ends, and the last ends at the file size; green "
    "is "
    "the overhead for reading the codes (scales, zero points, codebooks).",
    draw=size_ledger,
    describe=description,
)
