"""Rank of each layer under a budget of parameters, and its error."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import layer_axis, plotly_text, short_layer_name
from pages.formatting.numbers import megabytes, percent
from pages.panels.layers.rank_bars import bars, first_layers, rank_frame, rank_markers, rank_title
from pages.panels.panel import Panel
from pages.panels.theme import AXIS, ERROR, GRID, PERCENT, message_figure


def rank_planner(ranks: pd.DataFrame) -> go.Figure:
    """Rows of PlannedRow, in the model's order; beyond 60 the first are drawn."""
    if ranks.empty:
        return message_figure("No layer has calibration data, so no ranks can be assigned.")
    shown = first_layers(ranks)
    even = rank_markers(shown, shown.break_even, "Break-even rank", hover)
    figure = rank_frame(shown).add_traces(
        [*bars(shown, ("Rank", "Unchanged"), hover), even, error_markers(shown)]
    )
    figure.update_layout(
        yaxis=layer_axis(shown.layer) | {"showgrid": True, "gridcolor": GRID},
        xaxis2=error_axis(shown),
    )
    return figure.update_layout(
        xaxis={
            "title": {"text": rank_title(shown, ranks)},
            "domain": [0, 0.56],
            "rangemode": "tozero",
        }
    )


def error_markers(ranks: pd.DataFrame) -> go.Scatter:
    marker = {"color": ERROR, "size": 9}
    words = {"name": "Predicted error", "hovertext": hover(ranks), "hoverinfo": "text"}
    return go.Scatter(
        y=ranks.layer, x=ranks.predicted_error, xaxis="x2", mode="markers", marker=marker, **words
    )


def error_axis(ranks: pd.DataFrame) -> dict[str, Any]:
    reach = [0, 1.08 * max(ranks.predicted_error.max(), 0.01)]
    return AXIS | {
        "domain": [0.62, 1],
        "anchor": "y",
        "tickformat": PERCENT,
        "nticks": 4,
        "range": reach,
        "title": AXIS["title"] | {"text": "Error (%)"},
    }


def hover(ranks: pd.DataFrame) -> list[str]:
    return [
        f"<b>{plotly_text(row.layer)}</b><br>rank {row.rank} of {row.full_rank}, break-even "
        f"{row.break_even:.1f}<br>"
        f"{megabytes(row.original_bytes)} → {megabytes(row.size_bytes)}<br>predicted error "
        f"{percent(row.predicted_error)}"
        for row in ranks.itertuples(index=False)
    ]


def description(ranks: pd.DataFrame) -> str:
    before, after, worst = (
        ranks.original_bytes.sum(),
        ranks.size_bytes.sum(),
        ranks.reset_index(drop=True).predicted_error.idxmax(),
    )
    row = ranks.iloc[worst]
    return (
        f"{len(ranks)} layers, {megabytes(before)} → {megabytes(after)}; the largest error is in "
        f"{short_layer_name(row.layer, 80)}, {percent(row.predicted_error)} at rank {row['rank']}; "
        f"{int(ranks.whole.sum())} are unchanged."
    )


RANK_PLANNER = Panel(
    question="Which ranks does this budget allow?",
    caption=(
        "Left: the rank of each layer and its break-even rank. Right: the error predicted from "
        "the dropped singular values: that of the layer's output with SVD-LLM whitening, otherwise "
        "that of the (weighted) weights."
    ),
    draw=rank_planner,
    describe=description,
)
