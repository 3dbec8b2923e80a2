"""Range of the original weights of each output channel."""

import pandas as pd
import plotly.graph_objects as go

from pages.panels.panel import Panel
from pages.panels.theme import HIGHLIGHT, ORIGINAL, base_figure, message_figure


def channel_ranges(channels: pd.DataFrame) -> go.Figure:
    """Rows of ChannelRow for one layer."""
    reaching = channels.dropna(subset=["minimum", "maximum"], ignore_index=True)
    if reaching.empty:
        return message_figure("No channel ranges were recorded for this layer.")
    is_widest = reaching.index == widest_channel(reaching).name
    figure = base_figure(height=300).update_layout(
        barmode="overlay", bargap=0.15 if len(reaching) <= 64 else 0
    )
    figure.add_traces(
        [
            range_bars(reaching[~is_widest], ORIGINAL, "Channels"),
            range_bars(reaching[is_widest], HIGHLIGHT, widest_text(reaching)),
        ]
    )
    figure.update_xaxes(title_text="Output channel (number)", showgrid=False)
    return figure.update_yaxes(title_text="Original weight (value)")


def range_bars(channels: pd.DataFrame, color: str, name: str) -> go.Bar:
    hover = [
        f"channel {row.channel}: {row.minimum:.4g} to {row.maximum:.4g}"
        for row in channels.itertuples()
    ]
    style = {
        "marker": {"color": color, "line": {"width": 0}},
        "name": name,
        "showlegend": not channels.empty,
    }
    height = channels.maximum - channels.minimum
    return go.Bar(
        x=channels.channel,
        base=channels.minimum,
        y=height,
        hovertext=hover,
        hoverinfo="text",
        **style,
    )


def widest_channel(channels: pd.DataFrame) -> pd.Series:
    return channels.loc[(channels.maximum - channels.minimum).idxmax()]


def widest_text(channels: pd.DataFrame) -> str:
    row = widest_channel(channels)
    return f"Widest: channel {row.channel}, {row.minimum:.3g} to {row.maximum:.3g}"


def description(channels: pd.DataFrame) -> str:
    reaching = channels.dropna(subset=["minimum", "maximum"], ignore_index=True)
    return f"{len(channels)} output channels." + (
        "" if reaching.empty else f" {widest_text(reaching)}."
    )


CHANNEL_RANGES = Panel(
    question="Which channels have the largest range?",
    caption=(
        "Each bar runs from a channel's smallest to its largest weight. If bars differ much, one "
        "scale for all (per tensor) wastes levels."
    ),
    draw=channel_ranges,
    describe=description,
)
