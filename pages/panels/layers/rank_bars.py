"""Bars of layers' ranks with their break-even ranks, shared by the panels on ranks."""

from collections.abc import Callable

import pandas as pd
import plotly.graph_objects as go

from pages.panels.theme import COMPRESSED, ORIGINAL, REFERENCE, base_figure

MAX_LAYERS = 60
Hover = Callable[[pd.DataFrame], list[str]]


def first_layers(ranks: pd.DataFrame) -> pd.DataFrame:
    """First layers, up to MAX_LAYERS."""
    return ranks.head(MAX_LAYERS).reset_index(drop=True)


def rank_frame(shown: pd.DataFrame) -> go.Figure:
    return base_figure(height=130 + 22 * len(shown)).update_layout(bargap=0.25, barmode="overlay")


def rank_title(shown: pd.DataFrame, ranks: pd.DataFrame) -> str:
    return "Rank (directions)" + (
        f"<br>the first {len(shown)} of {len(ranks)} layers" if len(shown) < len(ranks) else ""
    )


def bars(ranks: pd.DataFrame, names: tuple[str, str], hover: Hover) -> list[go.Bar]:
    """Bars of factorized and of dense layers, under the two names, without empty ones."""
    faces = ((False, COMPRESSED, names[0]), (True, ORIGINAL, names[1]))
    return [
        bar(ranks[ranks.whole == kept_whole], color, name, hover)
        for kept_whole, color, name in faces
        if (ranks.whole == kept_whole).any()
    ]


def bar(ranks: pd.DataFrame, color: str, name: str, hover: Hover) -> go.Bar:
    style = {
        "orientation": "h",
        "marker": {"color": color},
        "name": name,
        "hovertext": hover(ranks),
        "hoverinfo": "text",
    }
    return go.Bar(y=ranks.layer, x=ranks["rank"], **style)


def rank_markers(
    ranks: pd.DataFrame, values: pd.Series, name: str, hover: Hover, symbol: str = "diamond"
) -> go.Scatter:
    """Another rank of each layer, such as its break-even."""
    marker = {
        "symbol": symbol,
        "size": 8,
        "color": REFERENCE if symbol == "x" else "#ffffff",
        "line": {"color": REFERENCE, "width": 2},
    }
    return go.Scatter(
        y=ranks.layer,
        x=values,
        mode="markers",
        marker=marker,
        name=name,
        hovertext=hover(ranks),
        hoverinfo="text",
    )
