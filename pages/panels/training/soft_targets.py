"""A teacher's probabilities for one example, at temperature 1 and softened."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import short_label
from pages.formatting.numbers import percent
from pages.panels.panel import Panel
from pages.panels.theme import HIGHLIGHT, ORIGINAL, PERCENT, REFERENCE, base_figure, message_figure


def soft_targets(answers: pd.DataFrame) -> go.Figure:
    """Rows of SoftTargetRow, most likely first: a pair of bars for each answer."""
    if answers.empty:
        return message_figure("The teacher has no prediction for this example.")
    rows = answers.reset_index(drop=True)
    figure = base_figure(height=90 + 30 * len(rows))
    figure.add_traces(
        [
            bars(rows, "plain", "Temperature 1"),
            bars(rows, "softened", f"At temperature {rows.temperature.iloc[0]:g}"),
        ]
    )
    figure.update_layout(barmode="group")
    figure.update_yaxes(
        autorange="reversed",
        tickvals=list(rows.index),
        ticktext=[short_title(answer) for answer in rows.answer],
        showgrid=False,
    )
    return figure.update_xaxes(title_text="Probability (%)", tickformat=PERCENT, rangemode="tozero")


def short_title(answer: str) -> str:
    return short_label(answer, 24)


def bars(rows: pd.DataFrame, column: str, name: str) -> go.Bar:
    """The right answer has a frame."""
    edge = [HIGHLIGHT if right else "rgba(0,0,0,0)" for right in rows.right]
    marker = {
        "color": REFERENCE if column == "plain" else ORIGINAL,
        "line": {"color": edge, "width": 2},
    }
    words = [
        (
            f"{short_title(answer)}<br>{percent(value)} "
            f"{name[0].lower()}{name[1:]}{'<br>the correct answer' if right else ''}"
        )
        for answer, value, right in zip(rows.answer, rows[column], rows.right, strict=True)
    ]
    return go.Bar(
        y=rows.index,
        x=rows[column],
        orientation="h",
        name=name,
        marker=marker,
        hovertext=words,
        hoverinfo="text",
    )


def description(answers: pd.DataFrame) -> str:
    first = answers.iloc[0]
    return f"{first.answer} with {percent(first.plain)}, softened {percent(first.softened)}."


SOFT_TARGETS = Panel(
    question="The teacher's probabilities",
    caption=(
        "Probabilities of the most likely answers, at temperature 1 and softened. The "
        "probabilities of other answers are what a student learns beyond the labels. The correct "
        "answer has a frame."
    ),
    draw=soft_targets,
    describe=description,
)
