"""Histogram of one layer's weights before and after, with the levels."""

from dataclasses import replace

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import count
from pages.panels.panel import Panel
from pages.panels.theme import (
    COMPRESSED,
    ORIGINAL,
    REFERENCE,
    base_figure,
    message_figure,
    translucent,
)

SPIKE = 4  # ratio to the highest other bar


def weight_histogram(
    histogram: pd.DataFrame, *, levels: pd.DataFrame | None = None, log_counts: bool = False
) -> go.Figure:
    """Rows of HistogramRow for one layer; ``levels`` are LevelRow of the same layer, on their own
    axis y2.
    """
    if histogram.empty:
        return message_figure("No histogram was recorded for this layer.")
    figure = base_figure().update_layout(barmode="overlay", bargap=0, hovermode="x unified")
    figure.add_traces([compressed_bars(histogram), original_outline(histogram)])
    figure.update_xaxes(
        title_text="Weight (value)",
        showgrid=False,
        hoverformat=".4~g",
        spikethickness=1,
        spikecolor=REFERENCE,
    )
    figure.update_yaxes(
        title_text="Weights (count)",
        **({"type": "log", "dtick": 1} if log_counts else {}),
        exponentformat="SI",
    )
    if not log_counts:
        truncate_spike(figure, histogram)
    return figure if levels is None or levels.empty else with_rug(figure, levels)


def truncate_spike(figure: go.Figure, histogram: pd.DataFrame) -> None:
    """Cut off one bar far above all others, such as that of pruned weights, and write its count as
    text.
    """
    highest = histogram.nlargest(2, "count")
    spike, other = highest.iloc[0], highest["count"].iloc[-1]
    if 0 < SPIKE * other < spike["count"]:
        figure.update_yaxes(range=[0, 1.35 * other])
        label = {
            "x": (spike.left + spike.right) / 2,
            "y": 1,
            "yref": "y domain",
            "xanchor": "left",
            "xshift": 8,
            "yanchor": "top",
        }
        figure.add_annotation(
            text=f"{count(spike['count'])} weights,<br>bar truncated",
            align="left",
            showarrow=False,
            **label,
        )
        # otherwise the text would widen the figure
        figure.update_xaxes(range=[histogram.left.min(), histogram.right.max()])


def compressed_bars(histogram: pd.DataFrame) -> go.Bar:
    bins = histogram[histogram.version == "compressed"]
    style = {
        "marker": {"color": translucent(COMPRESSED, 0.8), "line": {"width": 0}},
        "name": "Compressed",
    }
    return go.Bar(
        x=(bins.left + bins.right) / 2,
        y=bins["count"],
        width=bins.right - bins.left,
        hovertext=bin_texts(bins),
        hoverinfo="text+name",
        **style,
    )


def original_outline(histogram: pd.DataFrame) -> go.Scatter:
    """Outline of the original in front of the bars."""
    bins = histogram[histogram.version == "original"]
    style = {
        "mode": "lines",
        "line": {"color": ORIGINAL, "width": 1.8, "shape": "hvh"},
        "fill": "tozeroy",
        "fillcolor": translucent(ORIGINAL, 0.22),
    }
    return go.Scatter(
        x=(bins.left + bins.right) / 2,
        y=bins["count"],
        name="Original",
        legendrank=1,
        hovertext=bin_texts(bins),
        hoverinfo="text+name",
        **style,
    )


def bin_texts(bins: pd.DataFrame) -> list[str]:
    return [
        f"{row.count} from {row.left:.4g} to {row.right:.4g}"
        for row in bins.itertuples(index=False)
    ]


def with_rug(figure: go.Figure, levels: pd.DataFrame) -> go.Figure:
    """Ticks under the bars, one for each level; thinner if there are many."""
    ticks = {
        "symbol": "line-ns",
        "size": 9,
        "line": {"color": COMPRESSED, "width": 2 if len(levels) <= 32 else 0.5},
    }
    hover = [f"{value:.4g}" for value in levels.value]
    figure.add_scatter(
        x=levels.value,
        y=[0] * len(levels),
        yaxis="y2",
        mode="markers",
        marker=ticks,
        name=f"{len(levels)} levels",
        hovertext=hover,
    )
    figure.data[-1].hoverinfo = "text+name"
    lane = {
        "domain": [0, 0.07],
        "visible": False,
        "range": [-1, 1],
        "fixedrange": True,
        "anchor": "x",
    }
    return figure.update_layout(yaxis={"domain": [0.1, 1]}, yaxis2=lane, xaxis={"anchor": "y2"})


def description(histogram: pd.DataFrame) -> str:
    weights = histogram.loc[histogram.version == "original", "count"].sum()
    return (
        f"{count(weights)} weights between {histogram.left.min():.3g} and "
        f"{histogram.right.max():.3g}, before and after."
    )


OUTLINE = "The blue outline is the original, the orange bars are the compressed weights"
WEIGHT_HISTOGRAM = Panel(
    question="What happened to the weights of this layer?",
    caption=f"{OUTLINE}. Ticks mark the quantization levels of a typical group.",
    draw=weight_histogram,
    describe=description,
)
WEIGHTS_LEFT = replace(WEIGHT_HISTOGRAM, caption=f"{OUTLINE}; removed weights are a bar at zero.")
WEIGHTS_OF_STRUCTURES = replace(
    WEIGHT_HISTOGRAM, caption=f"{OUTLINE}; removed structures are no longer stored."
)
WEIGHTS_OF_FACTORS = replace(
    WEIGHT_HISTOGRAM, caption=f"{OUTLINE}, from the product of the factors."
)
