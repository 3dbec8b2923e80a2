"""Importance of each neuron, head, channel or block, and whether it was removed."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import whole
from pages.formatting.numbers import significant
from pages.panels.panel import Panel
from pages.panels.theme import ORIGINAL, REFERENCE, frame, sentence

ONE_BY_ONE = 48  # structures that are drawn as a bar each; of more there is a histogram
BINS = 48
SIDES = {False: ("Removed", REFERENCE), True: ("Kept", ORIGINAL)}
SCORE = "Importance (score)"


def structure_scores(rows: pd.DataFrame) -> go.Figure:
    """Rows of StructureRow of one block, or of all blocks where those are what is removed."""
    if rows.empty:
        return sentence("No structures were scored in this run.")
    if rows.score.isna().all():
        return sentence("Scores need calibration data.")
    return one_by_one(rows) if len(rows) <= ONE_BY_ONE else counted(rows)


def one_by_one(rows: pd.DataFrame) -> go.Figure:
    figure = (
        frame(height=340)
        .update_layout(bargap=0.25, barmode="overlay")
        .add_traces([bars(rows[rows.kept == kept], kept) for kept in SIDES])
    )
    figure.update_xaxes(
        title_text=f"{whole(rows.what.iloc[0].capitalize())} (number)",
        showgrid=False,
        dtick=max(1, len(rows) // 12),
    )
    return figure.update_yaxes(title_text=axis_of(rows), rangemode="tozero", exponentformat="SI")


def axis_of(rows: pd.DataFrame) -> str:
    return "Influence (1 - cosine)" if rows.what.iloc[0] == "block" else "Importance (score)"


def bars(rows: pd.DataFrame, kept: bool) -> go.Bar:
    name, color = SIDES[kept]
    hover = [
        f"{whole(row.what)} {row.index_}: {name.lower()}<br>score {significant(row.score)}"
        for row in numbered(rows)
    ]
    look = {
        "marker": {"color": color},
        "name": name,
        "showlegend": not rows.empty,
        "hovertext": hover,
        "hoverinfo": "text",
    }
    return go.Bar(x=rows["index"], y=rows.score, **look)


def numbered(rows: pd.DataFrame) -> Iterable[Any]:
    return rows.rename(columns={"index": "index_"}).itertuples(index=False)


def counted(rows: pd.DataFrame) -> go.Figure:
    """Bins are even from the least score to the largest."""
    edges = np.histogram_bin_edges(rows.score, BINS)
    figure = (
        frame(height=340)
        .update_layout(bargap=0, barmode="stack")
        .add_traces([bins(rows, kept, edges) for kept in SIDES])
    )
    figure.update_xaxes(title_text=SCORE, exponentformat="SI", nticks=6)
    return figure.update_yaxes(title_text=f"{whole(rows.what.iloc[0].capitalize())}s (number)")


def bins(rows: pd.DataFrame, kept: bool, edges: np.ndarray) -> go.Bar:
    name, color = SIDES[kept]
    counts, _ = np.histogram(rows.score[rows.kept == kept], edges)
    hover = [
        f"score {significant(low)} to {significant(high)}<br>{count} {name.lower()}"
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    look = {
        "width": np.diff(edges),
        "marker": {"color": color},
        "name": name,
        "hovertext": hover,
        "hoverinfo": "text",
    }
    return go.Bar(x=(edges[:-1] + edges[1:]) / 2, y=counts, **look)


def description(rows: pd.DataFrame) -> str:
    gone, what = rows[~rows.kept], rows.what.iloc[0]
    if gone.empty:
        return f"None of the {len(rows)} {what}s was removed."
    return (
        f"{len(gone)} of {len(rows)} {what}s were removed; the highest score among them is "
        f"{significant(gone.score.max())}."
    )


STRUCTURE_SCORES = Panel(
    question="Importance scores, and what was removed",
    caption=(
        "Gray structures were removed: those with the lowest scores, up to the requested share or "
        "number. Near the threshold, small differences of the score decided."
    ),
    draw=structure_scores,
    describe=description,
)
