"""Live view of gradual pruning: current sparsity and quality."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import count, named_quality, percent
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, ORIGINAL, base_figure, message_figure
from pages.panels.training.gradual_pruning import with_axes

PHASE = "gradual"  # names of the curves in a training of this kind
QUALITY_NAMES = ("accuracy", "perplexity")


def schedule_live(curves: pd.DataFrame) -> go.Figure:
    """Rows of CurveRow; those of one evaluation are adjacent, sparsity first."""
    if curves.empty:
        return message_figure("Nothing has been pruned yet.")
    rows = moments(curves)
    return with_axes(
        base_figure(height=460).add_traces([quality_line(rows), sparsity_line(rows)]),
        rows.quality_name.iloc[0],
    )


def moments(curves: pd.DataFrame) -> pd.DataFrame:
    """step, zero, quality and quality_name of each evaluation"""
    quality, zero = curves[curves.name.isin(QUALITY_NAMES)], curves[curves.name == "zero"]
    return pd.DataFrame(
        {
            "step": quality.step.to_numpy(),
            "zero": zero.value.to_numpy(),
            "quality": quality.value.to_numpy(),
            "quality_name": quality.name.to_numpy(),
        }
    )


def quality_line(rows: pd.DataFrame) -> go.Scatter:
    words = [
        f"step {count(row.step)}<br>{named_quality(row.quality_name, row.quality)}"
        for row in rows.itertuples(index=False)
    ]
    style = {
        "line": {"color": COMPRESSED, "width": 1},
        "marker": {"color": COMPRESSED, "size": 7},
        "mode": "lines+markers",
    }
    return go.Scatter(
        x=rows.step, y=rows.quality, name="Held out", hovertext=words, hoverinfo="text", **style
    )


def sparsity_line(rows: pd.DataFrame) -> go.Scatter:
    words = [
        f"step {count(row.step)}<br>{percent(row.zero)} zero"
        for row in rows.itertuples(index=False)
    ]
    style = {"line": {"color": ORIGINAL, "width": 2, "shape": "hv"}, "mode": "lines", "yaxis": "y2"}
    return go.Scatter(
        x=rows.step,
        y=rows.zero,
        name="Zero weights",
        hovertext=words,
        hoverinfo="text",
        **style,
    )


def description(curves: pd.DataFrame) -> str:
    last = moments(curves).iloc[-1]
    return (
        f"After {count(last.step)} steps {percent(last.zero)} of the weights are zero, "
        f"{named_quality(last.quality_name, last.quality)}."
    )


SCHEDULE_LIVE = Panel(
    question="Pruning progress",
    caption=(
        "Above: quality on held-out examples, after each pruning step and after the training "
        "that follows. Below: sparsity."
    ),
    draw=schedule_live,
    describe=description,
)
