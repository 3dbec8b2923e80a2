"""Singular values of one layer and their cumulative energy."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import percent
from pages.panels.panel import Panel
from pages.panels.theme import HIGHLIGHT, ORIGINAL, REFERENCE, base_figure, message_figure

SHARES = (0.5, 0.9, 0.99)


def spectrum(singular: pd.DataFrame) -> go.Figure:
    """Rows of SpectrumRow for one layer, by index."""
    if singular.empty:
        return message_figure("No singular values of this layer were computed.")
    figure = base_figure().add_traces(
        [singular_value_line(singular), energy_line(singular), share_markers(singular)]
    )
    figure.update_xaxes(title_text="Rank (number of singular values)", showgrid=False)
    figure.update_yaxes(
        title_text="Singular value (log scale)", type="log", dtick="D2", exponentformat="power"
    )
    right = {
        "overlaying": "y",
        "side": "right",
        "range": [0, 1.08],
        "tickformat": ".0%",
        "title": {"text": "Cumulative energy (%)", "standoff": 8},
    }
    return figure.update_layout(
        yaxis2={
            **right,
            "showgrid": False,
            "zeroline": False,
            "automargin": True,
            "tickvals": [0, 0.25, 0.5, 0.75, 1],
        }
    )


def singular_value_line(singular: pd.DataFrame) -> go.Scatter:
    hover = [f"singular value {row.index}: {row.singular_value:.4g}" for row in records(singular)]
    line = {"color": ORIGINAL, "width": 2}
    return go.Scatter(
        x=singular["index"],
        y=singular.singular_value,
        mode="lines",
        line=line,
        name="Singular values",
        hovertext=hover,
        hoverinfo="text",
    )


def energy_line(singular: pd.DataFrame) -> go.Scatter:
    hover = [
        f"the first {row.index} hold {percent(row.cumulative_energy)} of the energy"
        for row in records(singular)
    ]
    style = {
        "mode": "lines",
        "line": {"color": REFERENCE, "width": 2, "dash": "dash"},
        "name": "Cumulative energy",
        "yaxis": "y2",
    }
    return go.Scatter(
        x=singular["index"],
        y=singular.cumulative_energy,
        hovertext=hover,
        hoverinfo="text",
        **style,
    )


def share_markers(singular: pd.DataFrame) -> go.Scatter:
    """Ranks at which 50%, 90% and 99% of the energy are reached."""
    rows = first_rows_by_share(singular)
    words = [f"{share:.0%}: rank {row.index}" for share, row in rows]
    sides = [
        "top left" if row.index > singular["index"].max() / 2 else "bottom right" for _, row in rows
    ]
    style = {
        "mode": "markers+text",
        "marker": {"color": HIGHLIGHT, "size": 9},
        "text": words,
        "textposition": sides,
        "yaxis": "y2",
        "showlegend": False,
    }
    points = {"x": [row.index for _, row in rows], "y": [row.cumulative_energy for _, row in rows]}
    return go.Scatter(**points, hovertext=words, hoverinfo="text", **style)


def records(singular: pd.DataFrame) -> list[Any]:
    return list(singular.itertuples(index=False))


def first_rows_by_share(singular: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Each share with the first row that reaches it; shares that are not reached are left out."""
    enough = [(share, singular[singular.cumulative_energy >= share]) for share in SHARES]
    return [(share, records(rows)[0]) for share, rows in enough if not rows.empty]


def description(singular: pd.DataFrame) -> str:
    marks = ", ".join(
        f"{share:.0%} of the energy at rank {row.index}"
        for share, row in first_rows_by_share(singular)
    )
    return f"{len(singular)} singular values" + (f"; {marks}." if marks else ".")


SPECTRUM = Panel(
    question="Which rank does this layer need?",
    caption=(
        "The faster the dashed line rises (cumulative energy: share of the sum of squared "
        "singular values), the lower a rank the layer needs."
    ),
    draw=spectrum,
    describe=description,
)
