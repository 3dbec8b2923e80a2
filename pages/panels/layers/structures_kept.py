"""Remaining share of each block's neurons, heads or channels."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import layer_axis, plotly_text, short_layer_name
from pages.formatting.numbers import percent
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, PERCENT, base_figure, message_figure

MAX_BLOCKS = 60


def structures_kept(rows: pd.DataFrame) -> go.Figure:
    """Rows of StructureRow. Beyond 60 blocks, those that lost most are drawn, as the axis title
    states.
    """
    if rows.empty:
        return message_figure("No structures were scored in this run.")
    shares = by_block(rows)
    shown = (
        shares.loc[shares.share.nsmallest(MAX_BLOCKS).index.sort_values()]
        if len(shares) > MAX_BLOCKS
        else shares
    )
    figure = (
        base_figure(height=110 + 22 * len(shown))
        .update_layout(bargap=0.25)
        .add_traces([bars(shown)])
    )
    figure.update_yaxes(layer_axis(shown.block), showgrid=False)
    title = "Share kept (%)" + (
        f"<br>the {MAX_BLOCKS} of {len(shares)} that lost most" if len(shown) < len(shares) else ""
    )
    return figure.update_xaxes(title_text=title, tickformat=PERCENT, range=[0, 1.02])


def by_block(rows: pd.DataFrame) -> pd.DataFrame:
    """Structures by block, in the model's order."""
    grouped = rows.groupby("block", sort=False)
    return grouped.agg(
        what=("what", "first"), left=("kept", "sum"), of=("kept", "size"), share=("kept", "mean")
    ).reset_index()


def bars(shares: pd.DataFrame) -> go.Bar:
    hover = [
        f"<b>{plotly_text(row.block)}</b><br>{row.left} of {row.of} {plotly_text(row.what)}s kept"
        for row in shares.itertuples(index=False)
    ]
    style = {
        "orientation": "h",
        "marker": {"color": COMPRESSED},
        "hovertext": hover,
        "hoverinfo": "text",
        "showlegend": False,
    }
    return go.Bar(y=shares.block, x=shares.share, **style)


def description(rows: pd.DataFrame) -> str:
    shares = by_block(rows)
    smallest = shares.loc[shares.share.idxmin()]
    return (
        f"{short_layer_name(smallest.block, 80)} keeps the smallest share, "
        f"{percent(smallest.share)} of its {smallest.of} {smallest.what}s."
    )


STRUCTURES_KEPT = Panel(
    question="How much of each layer was kept?",
    caption=(
        "With a share per layer all bars are equal; with a global share, this shows which "
        "layers had the most redundancy by that score."
    ),
    draw=structures_kept,
    describe=description,
)
