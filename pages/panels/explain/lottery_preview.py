"""Preview of the lottery-ticket experiment: the weights that remain after each round, and the step
to rewind to.
"""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import count, percent
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, PERCENT, REFERENCE, base_figure, message_figure


def lottery_preview(rounds: pd.DataFrame) -> go.Figure:
    """Rows of RoundRow: a solid line for each training, a dotted line for pruning and rewinding."""
    if rounds.empty:
        return message_figure("There are no pruning rounds.")
    figure = base_figure(height=280).add_traces(
        [rewinding_line(rounds), *(training_line(row) for row in rounds.itertuples(index=False))]
    )
    figure.update_xaxes(title_text="Training steps (number)", rangemode="tozero")
    return figure.update_yaxes(
        title_text="Weights remaining (%)", tickformat=PERCENT, rangemode="tozero"
    )


def rewinding_line(rounds: pd.DataFrame) -> go.Scatter:
    rewinds = list(
        zip(rounds.ends[:-1], rounds.begins[1:], rounds.left[:-1], rounds.left[1:], strict=True)
    )
    points = [
        point
        for end, begin, before, after in rewinds
        for point in ((end, before), (begin, after), (None, None))
    ]
    style = {
        "line": {"color": REFERENCE, "width": 1, "dash": "dot"},
        "mode": "lines",
        "hoverinfo": "skip",
    }
    return go.Scatter(
        x=[x for x, _ in points], y=[y for _, y in points], name="Pruned and rewound", **style
    )


def training_line(row: Any) -> go.Scatter:
    number = row[0]
    named = f"round {number}" if number else "all weights"
    words = (
        f"{named}: {percent(row.left)} remaining<br>trained from step {count(row.begins)} to "
        f"{count(row.ends)}"
    )
    style = {
        "line": {"color": COMPRESSED, "width": 3},
        "marker": {"color": COMPRESSED, "size": 8, "symbol": ["circle", "triangle-right"]},
    }
    return go.Scatter(
        x=[row.begins, row.ends],
        y=[row.left] * 2,
        mode="lines+markers",
        name="Training",
        showlegend=not number,
        hovertext=[words] * 2,
        hoverinfo="text",
        **style,
    )


def description(rounds: pd.DataFrame) -> str:
    last = rounds.iloc[-1]
    return (
        f"After {len(rounds) - 1} rounds, {percent(last.left)} of the weights remain; each round "
        f"rewinds to step {count(last.begins)}."
    )


LOTTERY_PREVIEW = Panel(
    question="Sparsity and rewinding of each round",
    caption=(
        "For the options above and one seed. Each line is a training run; at its end the smallest "
        "weights are pruned and the others reset to their values at the step where the next line "
        "starts (rewinding)."
    ),
    draw=lottery_preview,
    describe=description,
)
