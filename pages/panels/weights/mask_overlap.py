"""Agreement of methods on the weights to keep."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import multiline_label, plotly_text
from pages.formatting.numbers import percent
from pages.panels.panel import Panel
from pages.panels.theme import ERROR, PALE_ERROR, TEXT_ON_COLOR, base_figure, message_figure


def mask_overlap(rows: pd.DataFrame) -> go.Figure:
    """Rows of OverlapRow, each pair in both orders."""
    if rows.empty:
        return message_figure("No two methods to compare.")
    order = rows.one.unique().tolist()
    figure = base_figure(height=130 + 44 * len(order)).add_traces([overlap_heatmap(rows, order)])
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return figure.update_xaxes(type="category", showgrid=False, tickangle=-45)


def overlap_heatmap(rows: pd.DataFrame, order: list[str]) -> go.Heatmap:
    grid = rows.pivot(index="one", columns="other", values="overlap").loc[order, order].to_numpy()
    text = [[percent(value) for value in cells] for cells in grid]
    hover = [
        [
            f"{plotly_text(one)}<br>and {plotly_text(other)}<br>both keep {share} of what either "
            "keeps"
            for other, share in zip(order, cells, strict=True)
        ]
        for one, cells in zip(order, text, strict=True)
    ]
    style = {
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, PALE_ERROR], [1, ERROR]],
        "showscale": False,
        "text": text,
        "texttemplate": "%{text}",
        "textfont": {"color": TEXT_ON_COLOR},
    }
    names = [multiline_label(name, 14) for name in order]
    return go.Heatmap(x=names, y=names, z=grid, hovertext=hover, hoverinfo="text", **style)


def description(rows: pd.DataFrame) -> str:
    pairs = rows[rows.one != rows.other].reset_index(drop=True)
    if pairs.empty:
        return "Only one method."
    lowest, highest = pairs.loc[pairs.overlap.idxmin()], pairs.loc[pairs.overlap.idxmax()]
    return (
        f"{highest.one} and {highest.other} agree most, {percent(highest.overlap)}; "
        f"{lowest.one} and {lowest.other} least, {percent(lowest.overlap)}."
    )


MASK_OVERLAP = Panel(
    question="Do the methods keep the same weights?",
    caption=(
        "Of the weights that either of two methods keeps, the share that both keep (intersection "
        "over union). Two random masks that keep half of the weights share a third."
    ),
    draw=mask_overlap,
    describe=description,
)
