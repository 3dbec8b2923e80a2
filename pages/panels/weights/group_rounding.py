"""A few weights of one group, and the levels to which they are rounded."""

import pandas as pd
import plotly.graph_objects as go

from pages.panels.panel import Panel
from pages.panels.theme import (
    COMPRESSED,
    HIGHLIGHT,
    ORIGINAL,
    REFERENCE,
    base_figure,
    message_figure,
    translucent,
)

MANY_LEVELS = 32


def group_rounding(group: pd.DataFrame, levels: pd.DataFrame | None = None) -> go.Figure:
    """Rows of GroupRow; each level (LevelRow) is a horizontal line."""
    if group.empty:
        return message_figure("No weights to show.")
    group = group.reset_index(drop=True)
    figure = base_figure(height=380)
    if levels is not None and not levels.empty:
        figure.add_traces([level_lines(levels.value, len(group))])
    figure.add_traces([rounding_lines(group), dots(group, "original"), dots(group, "stored")])
    if group.chosen.any():
        figure.add_traces([chosen_marker(group[group.chosen])])
    figure.update_xaxes(title_text="Weight in the group (number)", showgrid=False)
    return figure.update_yaxes(title_text="Weight (value)", showgrid=False)


def level_lines(levels: pd.Series, width: int) -> go.Scatter:
    x, y = (
        [-1, width, None] * len(levels),
        [point for value in levels for point in (value, value, None)],
    )
    line = {
        "color": translucent(REFERENCE, 0.55),
        "width": 1 if len(levels) <= MANY_LEVELS else 0.4,
    }
    return go.Scatter(
        x=x, y=y, mode="lines", line=line, name=f"{len(levels)} levels", hoverinfo="skip"
    )


def rounding_lines(group: pd.DataFrame) -> go.Scatter:
    x = [point for number in group.index for point in (number, number, None)]
    y = [
        value for row in group.itertuples(index=False) for value in (row.original, row.stored, None)
    ]
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": COMPRESSED, "width": 2},
        showlegend=False,
        hoverinfo="skip",
    )


def dots(group: pd.DataFrame, version: str) -> go.Scatter:
    name, marker = {
        "original": ("Weight", {"color": ORIGINAL, "size": 6}),
        "stored": (
            "Stored value",
            {"symbol": "line-ew", "size": 6, "line": {"color": COMPRESSED, "width": 3}},
        ),
    }[version]
    return go.Scatter(
        x=group.index,
        y=group[version],
        mode="markers",
        marker=marker,
        name=name,
        hovertext=hover(group),
        hoverinfo="text",
    )


def chosen_marker(chosen: pd.DataFrame) -> go.Scatter:
    marker = {"color": HIGHLIGHT, "symbol": "circle-open", "size": 16, "line": {"width": 2.5}}
    return go.Scatter(
        x=chosen.index,
        y=chosen.original,
        mode="markers",
        marker=marker,
        name="This weight",
        hovertext=hover(chosen),
        hoverinfo="text",
    )


def hover(group: pd.DataFrame) -> list[str]:
    return [
        (
            f"row {row.row}, column {row.column}<br>{row.original:.4g} → "
            f"{row.stored:.4g}<br>error {row.stored - row.original:+.2g}"
        )
        for row in group.itertuples(index=False)
    ]


def description(group: pd.DataFrame) -> str:
    errors = (group.stored - group.original).abs()
    return (
        f"{len(group)} weights between {group.original.min():.3g} and "
        f"{group.original.max():.3g}; the largest error is {errors.max():.2g}."
    )


GROUP_ROUNDING = Panel(
    question="Which level does each weight get?",
    caption=(
        "Blue dots are adjacent weights, orange bars their stored values; the lines between them "
        "are the errors. Horizontal lines are the available levels."
    ),
    draw=group_rounding,
    describe=description,
)
