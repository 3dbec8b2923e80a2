"""Output error of each layer for each strength of the activation scales, and the chosen
strength.
"""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import plotly_text, short_layer_name
from pages.formatting.numbers import change
from pages.panels.panel import Panel
from pages.panels.theme import (
    COMPRESSED,
    HIGHLIGHT,
    REFERENCE,
    base_figure,
    message_figure,
    translucent,
)

LOG_AXIS_RATIO = (
    20  # ratio of the largest to the smallest error above which the axis is logarithmic
)


def alpha_search(searches: pd.DataFrame, *, layer: str = "") -> go.Figure:
    """Rows of SearchRow of all layers; ``layer`` is highlighted, by default the one with the
    largest gain.
    """
    tried = searches[searches.groupby("layer").alpha.transform("size") > 1].reset_index(drop=True)
    if tried.empty:
        return message_figure("This run did not search alpha.")
    layer = layer if layer in set(tried.layer) else most_improved_layer(tried)
    of_layer, of_others = tried[tried.layer == layer], tried[tried.layer != layer]
    figure = base_figure(height=380).add_traces(
        [
            other_layer_lines(of_others),
            chosen_points(of_others),
            error_curve(of_layer),
            chosen_marker(of_layer),
        ]
    )
    figure.add_hline(y=1, line={"color": REFERENCE, "width": 1, "dash": "dash"})
    figure.update_xaxes(title_text="Alpha (exponent of the scales)", showgrid=False)
    log = (
        {"type": "log", "dtick": 1}
        if tried.error.max() > LOG_AXIS_RATIO * max(tried.error.min(), 1e-12)
        else {}
    )
    return figure.update_yaxes(title_text="Output error (relative to alpha 0)", **log)


def other_layer_lines(searches: pd.DataFrame) -> go.Scatter:
    """Lines of all other layers in one trace, separated by gaps."""
    gap = pd.DataFrame({"alpha": [None], "error": [None]})
    parts = [
        part
        for _, rows in searches.groupby("layer", sort=False)
        for part in (rows[["alpha", "error"]].astype(object), gap)
    ]
    joined = pd.concat(parts) if parts else gap
    style = {
        "mode": "lines",
        "line": {"color": translucent(REFERENCE, 0.55), "width": 1},
        "name": "Other layers",
        "showlegend": bool(parts),
    }
    return go.Scatter(x=joined.alpha.tolist(), y=joined.error.tolist(), hoverinfo="skip", **style)


def chosen_points(searches: pd.DataFrame) -> go.Scatter:
    """Chosen alpha of every other layer."""
    rows = searches[searches.chosen]
    style = {"mode": "markers", "marker": {"color": REFERENCE, "size": 5}, "showlegend": False}
    return go.Scatter(x=rows.alpha, y=rows.error, hovertext=hover(rows), hoverinfo="text", **style)


def error_curve(searches: pd.DataFrame) -> go.Scatter:
    style = {
        "mode": "lines+markers",
        "line": {"color": COMPRESSED, "width": 2},
        "marker": {"color": COMPRESSED, "size": 5},
    }
    return go.Scatter(
        x=searches.alpha,
        y=searches.error,
        name=short_layer_name(searches.layer.iloc[0]),
        hovertext=hover(searches),
        hoverinfo="text",
        **style,
    )


def chosen_marker(searches: pd.DataFrame) -> go.Scatter:
    rows = searches[searches.chosen]
    style = {
        "mode": "markers",
        "marker": {"color": HIGHLIGHT, "size": 11, "symbol": "diamond"},
        "name": "Chosen",
    }
    return go.Scatter(x=rows.alpha, y=rows.error, hovertext=hover(rows), hoverinfo="text", **style)


def hover(searches: pd.DataFrame) -> list[str]:
    return [
        f"<b>{plotly_text(row.layer)}</b><br>scales folded into {plotly_text(row.source)}<br>"
        f"alpha {row.alpha:.3g}: error {change(1, row.error)} relative to alpha 0"
        for row in searches.itertuples(index=False)
    ]


def most_improved_layer(searches: pd.DataFrame) -> str:
    return searches.layer[searches.error.idxmin()]


def description(searches: pd.DataFrame) -> str:
    rows = searches.reset_index(drop=True)
    best = rows[rows.chosen]
    minimum = best.loc[best.error.idxmin()]
    gain = (
        f"{short_layer_name(minimum.layer, 80)} improves most: {change(1, minimum.error)} at alpha "
        f"{minimum.alpha:.2g}"
    )
    return (
        f"{rows.layer.nunique()} layer inputs, alpha {best.alpha.min():.2g} to "
        f"{best.alpha.max():.2g} chosen; {gain}."
    )


ALPHA_SEARCH = Panel(
    question="How does the error depend on alpha?",
    caption=(
        "Each line is the input of one layer (or of several that share it): the expected squared "
        "output error at each alpha, relative to alpha 0. The lowest point was chosen. With AWQ, "
        "alpha 0 is unscaled, so above the dashed line scaling hurts; with SmoothQuant, alpha 0 "
        "puts the whole difficulty on the activations."
    ),
    draw=alpha_search,
    describe=description,
)
