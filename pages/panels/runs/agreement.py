"""Examples that both teacher and student, one of them, or neither predicted correctly."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import count, percent
from pages.panels.panel import Panel
from pages.panels.theme import (
    COMPRESSED,
    ERROR,
    ORIGINAL,
    PERCENT,
    REFERENCE,
    base_figure,
    message_figure,
)

CASES = {
    (True, True): ("Both right", ORIGINAL),
    (True, False): ("Only the teacher", ERROR),
    (False, True): ("Only the student", COMPRESSED),
    (False, False): ("Neither", REFERENCE),
}


def agreement(rows: pd.DataFrame) -> go.Figure:
    """Rows of VerdictRow: a bar for each case."""
    if rows.empty:
        return message_figure("No student was compared with its teacher in this run.")
    shown = case_shares(rows)
    words = [
        f"{name}: {count(number)}<br>{percent(share)} of all"
        for name, number, share in zip(shown.case, shown["count"], shown.share, strict=True)
    ]
    labels = [percent(share) for share in shown.share]
    bars = go.Bar(
        y=shown.case,
        x=shown.share,
        orientation="h",
        marker_color=[color for _, color in CASES.values()],
        text=labels,
        textposition="auto",
        hovertext=words,
        hoverinfo="text",
        showlegend=False,
    )
    figure = base_figure(height=90 + 34 * len(shown)).add_traces([bars])
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return figure.update_xaxes(
        title_text="Share of the examples (%)", tickformat=PERCENT, rangemode="tozero"
    )


def case_shares(rows: pd.DataFrame) -> pd.DataFrame:
    """All four cases in their order: case, count, share."""
    counts = (
        rows.groupby(["teacher", "student"])["count"]
        .sum()
        .reindex(list(CASES), fill_value=0)
        .to_numpy()
    )
    return pd.DataFrame(
        {
            "case": [name for name, _ in CASES.values()],
            "count": counts,
            "share": counts / max(1, counts.sum()),
        }
    )


def description(rows: pd.DataFrame) -> str:
    both, teacher, student, neither = (f"{percent(share)}" for share in case_shares(rows).share)
    return (
        f"Of {count(rows['count'].sum())}: both right {both}, only the teacher {teacher}, only "
        f"the student {student}, neither {neither}."
    )


AGREEMENT = Panel(
    question="Agreement of student and teacher",
    caption=(
        "All evaluation examples (for texts: next tokens) by which model's first choice was "
        "correct. Examples that only one gets right show how differently the student behaves."
    ),
    draw=agreement,
    describe=description,
)
