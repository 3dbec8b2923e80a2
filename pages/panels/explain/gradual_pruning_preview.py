"""Preview of gradual pruning: sparsity after each pruning step, by each schedule."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import count, percent
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, PERCENT, REFERENCE, base_figure, message_figure

DASHES = {"one-shot": "dot", "iterative": "dash", "cubic": "solid"}


def gradual_pruning_preview(cuts: pd.DataFrame) -> go.Figure:
    """Rows of CutRow, a line for each schedule; the chosen one is colored, with a marker for each
    pruning step.
    """
    if cuts.empty:
        return message_figure("Nothing is pruned.")
    lines = [schedule_line(rows, name) for name, rows in cuts.groupby("schedule", sort=False)]
    figure = base_figure(height=280).add_traces(sorted(lines, key=lambda line: line.line.width))
    figure.update_xaxes(title_text="Training steps (number)", rangemode="tozero")
    return figure.update_yaxes(
        title_text="Zero weights (%)", tickformat=PERCENT, rangemode="tozero"
    )


def schedule_line(rows: pd.DataFrame, name: str) -> go.Scatter:
    chosen = bool(rows.chosen.iloc[0])
    color = COMPRESSED if chosen else REFERENCE
    style = {
        "line": {"color": color, "width": 3 if chosen else 1, "dash": DASHES[name], "shape": "hv"},
        "marker": {"color": color, "size": 7},
    }
    words = [
        f"{name}<br>{percent(row.share)} zero from step {count(row.step)}"
        for row in rows.itertuples(index=False)
    ]
    called = f"{name.capitalize()}{' (chosen)' if chosen else ''}"
    return go.Scatter(
        x=rows.step,
        y=rows.share,
        mode="lines+markers" if chosen else "lines",
        name=called,
        hovertext=words,
        hoverinfo="text",
        **style,
    )


def description(cuts: pd.DataFrame) -> str:
    chosen_rows = cuts[cuts.chosen & cuts.cut.gt(0)]
    name = chosen_rows.schedule.iloc[0].capitalize()
    return (
        f"{name}: {len(chosen_rows)} pruning steps, from {percent(chosen_rows.share.iloc[0])} to "
        f"{percent(chosen_rows.share.iloc[-1])} zero weights."
    )


GRADUAL_PRUNING_PREVIEW = Panel(
    question="Sparsity after each pruning step",
    caption=(
        "For the schedule chosen above (marks are pruning steps) and the two others. The "
        "remaining weights are trained between pruning steps and, without regrowth, after the "
        "last one. With regrowth, pruning steps continue to the end and may change which weights "
        "are zero, but not how many."
    ),
    draw=gradual_pruning_preview,
    describe=description,
)
