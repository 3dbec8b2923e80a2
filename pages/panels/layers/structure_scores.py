"""Importance of each neuron, head, channel or block, and whether it was removed."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import plotly_text
from pages.formatting.numbers import short_number
from pages.panels.panel import Panel
from pages.panels.theme import ORIGINAL, REFERENCE, base_figure, message_figure

MAX_SCORE_BARS = 48  # structures drawn as bars; more are drawn as a histogram
BINS = 48
SIDES = {False: ("Removed", REFERENCE), True: ("Kept", ORIGINAL)}
SCORE_TITLE = "Importance (score)"


def structure_scores(rows: pd.DataFrame) -> go.Figure:
    """Rows of StructureRow of one block, or of all blocks if blocks were removed."""
    if rows.empty:
        return message_figure("No structures were scored in this run.")
    if rows.score.isna().all():
        return message_figure("Scores need calibration data.")
    return score_bars(rows) if len(rows) <= MAX_SCORE_BARS else score_histogram(rows)


def score_bars(rows: pd.DataFrame) -> go.Figure:
    figure = (
        base_figure(height=340)
        .update_layout(bargap=0.25, barmode="overlay")
        .add_traces([bars(rows[rows.kept == kept], kept) for kept in SIDES])
    )
    figure.update_xaxes(
        title_text=f"{plotly_text(rows.what.iloc[0].capitalize())} (number)",
        showgrid=False,
        dtick=max(1, len(rows) // 12),
    )
    return figure.update_yaxes(
        title_text=score_axis_title(rows), rangemode="tozero", exponentformat="SI"
    )


def score_axis_title(rows: pd.DataFrame) -> str:
    return "Influence (1 - cosine)" if rows.what.iloc[0] == "block" else "Importance (score)"


def bars(rows: pd.DataFrame, kept: bool) -> go.Bar:
    name, color = SIDES[kept]
    hover = [
        f"{plotly_text(row.what)} {row.index_}: {name.lower()}<br>score {short_number(row.score)}"
        for row in row_records(rows)
    ]
    style = {
        "marker": {"color": color},
        "name": name,
        "showlegend": not rows.empty,
        "hovertext": hover,
        "hoverinfo": "text",
    }
    return go.Bar(x=rows["index"], y=rows.score, **style)


def row_records(rows: pd.DataFrame) -> Iterable[Any]:
    return rows.rename(columns={"index": "index_"}).itertuples(index=False)


def score_histogram(rows: pd.DataFrame) -> go.Figure:
    """Bins have equal width from the smallest score to the largest."""
    edges = np.histogram_bin_edges(rows.score, BINS)
    figure = (
        base_figure(height=340)
        .update_layout(bargap=0, barmode="stack")
        .add_traces([histogram_bars(rows, kept, edges) for kept in SIDES])
    )
    figure.update_xaxes(title_text=SCORE_TITLE, exponentformat="SI", nticks=6)
    return figure.update_yaxes(
        title_text=f"{plotly_text(rows.what.iloc[0].capitalize())}s (number)"
    )


def histogram_bars(rows: pd.DataFrame, kept: bool, edges: np.ndarray) -> go.Bar:
    name, color = SIDES[kept]
    counts, _ = np.histogram(rows.score[rows.kept == kept], edges)
    hover = [
        f"score {short_number(low)} to {short_number(high)}<br>{count} {name.lower()}"
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    style = {
        "width": np.diff(edges),
        "marker": {"color": color},
        "name": name,
        "hovertext": hover,
        "hoverinfo": "text",
    }
    return go.Bar(x=(edges[:-1] + edges[1:]) / 2, y=counts, **style)


def description(rows: pd.DataFrame) -> str:
    removed, kind = rows[~rows.kept], rows.what.iloc[0]
    if removed.empty:
        return f"None of the {len(rows)} {kind}s was removed."
    return (
        f"{len(removed)} of {len(rows)} {kind}s were removed; the highest score among them is "
        f"{short_number(removed.score.max())}."
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
