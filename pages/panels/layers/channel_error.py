"""Change of each output channel of one layer."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import percent
from pages.panels.panel import Panel
from pages.panels.theme import ERROR, HIGHLIGHT, PERCENT, base_figure, message_figure


def channel_error(channels: pd.DataFrame) -> go.Figure:
    """Rows of ChannelRow for one layer. Channels without an error (all zero, so nothing to compare
    with) are left out.
    """
    measured = channels.dropna(subset="relative_error", ignore_index=True)
    if measured.empty:
        return message_figure("No channel of this layer has changed.")
    figure = base_figure(height=300).add_traces([channel_points(measured)])
    figure.update_xaxes(title_text="Output channel (number)", showgrid=False)
    figure.update_yaxes(title_text="Relative error (%)", tickformat=PERCENT, rangemode="tozero")
    return highlight_channel(
        figure,
        worst_channel(measured),
        right_half=worst_channel(measured).channel > measured.channel.median(),
    )


def channel_points(channels: pd.DataFrame) -> go.Scatter:
    dots = {"color": ERROR, "size": 6 if len(channels) <= 256 else 3}
    hover = [
        f"channel {row.channel}: {percent(row.relative_error)}" for row in channels.itertuples()
    ]
    return go.Scatter(
        x=channels.channel,
        y=channels.relative_error,
        mode="markers",
        marker=dots,
        hovertext=hover,
        hoverinfo="text",
        showlegend=False,
    )


def highlight_channel(figure: go.Figure, row: pd.Series, *, right_half: bool) -> go.Figure:
    """Highlight the worst channel, with its text on the side inside the figure."""
    point, red = {"x": row.channel, "y": row.relative_error}, {"color": HIGHLIGHT, "size": 9}
    figure.add_scatter(
        x=[point["x"]],
        y=[point["y"]],
        mode="markers",
        marker=red,
        name="Worst channel",
        hoverinfo="skip",
        showlegend=False,
    )
    side = {"xanchor": "right" if right_half else "left", "yanchor": "bottom", "yshift": 5}
    return figure.add_annotation(
        **point, **side, text=channel_text(row), showarrow=False, font={"color": HIGHLIGHT}
    )


def worst_channel(channels: pd.DataFrame) -> pd.Series:
    return channels.loc[channels.relative_error.idxmax()]


def channel_text(row: pd.Series) -> str:
    return f"channel {row.channel}: {percent(row.relative_error)}"


def description(channels: pd.DataFrame) -> str:
    measured = channels.dropna(subset="relative_error", ignore_index=True)
    return f"{len(channels)} output channels" + (
        "." if measured.empty else f"; the worst is {channel_text(worst_channel(measured))}."
    )


CHANNEL_ERROR = Panel(
    question="Which channels of this layer changed most?",
    caption=(
        "Each dot is an output channel: the norm of its change divided by the norm of its "
        "weights (relative error, ‖w - ŵ‖/‖w‖)."
    ),
    draw=channel_error,
    describe=description,
)
