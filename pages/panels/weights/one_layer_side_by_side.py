"""Weight histograms of one layer under several techniques, with a common axis."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import short_label
from pages.panels.panel import Panel
from pages.panels.theme import AXIS, base_figure, message_figure
from pages.panels.weights.weight_histogram import compressed_bars, original_outline

STRIP = 130  # pixels
TITLE = 26


def one_layer_side_by_side(histogram: pd.DataFrame) -> go.Figure:
    """Rows of HistogramRow for one layer with a column ``label``, one label per technique. Strips
    are below each other, so that levels line up.
    """
    if histogram.empty:
        return message_figure("No histograms to compare.")
    labels = list(histogram.label.unique())
    figure = base_figure(height=STRIP * len(labels) + 90).update_layout(barmode="overlay", bargap=0)
    for number, label in enumerate(labels):
        add_strip(figure, histogram[histogram.label == label], number, len(labels))
    last = "y" if len(labels) == 1 else f"y{len(labels)}"
    return figure.update_xaxes(title_text="Weight (value)", showgrid=False, anchor=last)


def add_strip(figure: go.Figure, histogram: pd.DataFrame, number: int, n_strips: int) -> None:
    axis = f"y{number + 1}" if number else "y"
    for trace in (compressed_bars(histogram), original_outline(histogram)):
        figure.add_trace(trace.update(yaxis=axis, showlegend=number == 0, legendgroup=trace.name))
    bottom, top = strip_domain(number, n_strips)
    title = {**AXIS["title"], "text": "Weights (count)" if number == n_strips // 2 else ""}
    figure.update_layout(
        {
            f"yaxis{axis[1:]}": {
                **AXIS,
                "domain": [bottom, top],
                "nticks": 3,
                "exponentformat": "SI",
                "title": title,
            }
        }
    )
    words = {
        "text": short_label(histogram.label.iloc[0], 44),
        "font": {"size": 13},
        "showarrow": False,
    }
    figure.add_annotation(
        x=0, y=top, xref="paper", yref="paper", xanchor="left", yanchor="bottom", **words
    )


def strip_domain(number: int, n_strips: int) -> tuple[float, float]:
    """Bottom and top of a strip as shares of the plot's height, first strip on top, room for its
    label above it.
    """
    top = 1 - number / n_strips - TITLE / (STRIP * n_strips)
    return 1 - (number + 1) / n_strips, top


def description(histogram: pd.DataFrame) -> str:
    return (
        f"{histogram.label.nunique()} techniques on one layer: "
        f"{', '.join(histogram.label.unique())}."
    )


ONE_LAYER_SIDE_BY_SIDE = Panel(
    question="What does each technique do to the same weights?",
    caption=(
        "The blue outline is the original in every strip; orange bars are the result of each "
        "technique."
    ),
    draw=one_layer_side_by_side,
    describe=description,
)
