"""Input channels of one layer with the largest activations, their scales, and the error of their
weights.
"""

from math import ceil
from typing import Literal, NamedTuple

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import percent
from pages.panels.panel import Panel
from pages.panels.theme import (
    AXIS,
    COMPRESSED,
    ERROR,
    HIGHLIGHT,
    ORIGINAL,
    PERCENT,
    REFERENCE,
    base_figure,
    message_figure,
)

SALIENT = 0.01  # of the channels
MAX_POINTS = 512  # besides the salient ones, which are all drawn
MEASURES = {"magnitude": "Mean |x|", "largest": "Largest |x|"}


class Lane(NamedTuple):
    """A vertical axis; ``percent`` formats its numbers."""

    title: str
    percent: bool = False


def salient_channels(
    inputs: pd.DataFrame,
    *,
    measure: Literal["magnitude", "largest"] = "magnitude",
    by_strength: bool = True,
) -> go.Figure:
    """Rows of InputRow for one layer. Many channels are drawn as the maxima of neighbors, as the
    axis title states.
    """
    if inputs.empty:
        return message_figure("The inputs of this layer were not recorded.")
    points, width = downsampled_channels(plotted_channels(inputs, measure, by_strength))
    figure = base_figure(height=560 if is_scaled(inputs) else 440)
    figure.add_traces([*magnitudes(points, measure), *scales(points), *weight_errors(points)])
    figure.update_xaxes(title_text=axis_title(by_strength, width), showgrid=False)
    return with_lanes(
        figure,
        [
            Lane(f"{MEASURES[measure]} (value)"),
            *([Lane("Scale (factor)")] if is_scaled(inputs) else []),
            Lane("Weight error (%)", percent=True),
        ],
    )


def plotted_channels(inputs: pd.DataFrame, measure: str, by_strength: bool) -> pd.DataFrame:
    """Table with the drawn columns: ``place`` on the axis, ``before`` and ``after`` the scales, and
    whether a channel is ``salient``.
    """
    strength = inputs[measure].rank(method="first", ascending=False).astype(int)
    columns = {
        "before": inputs[measure],
        "after": inputs[measure] / inputs.scale,
        "salient": strength <= ceil(SALIENT * len(inputs)),
    }
    return inputs.assign(place=strength if by_strength else inputs.channel, **columns).sort_values(
        "place", ignore_index=True
    )


def downsampled_channels(points: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Salient channels unchanged, the others as maxima of ``width`` neighbors."""
    regular = points[~points.salient].reset_index(drop=True)
    width = ceil(len(regular) / MAX_POINTS) or 1
    maxima = regular.groupby(regular.index // width).agg(
        {
            "place": "first",
            "channel": "first",
            "before": "max",
            "after": "max",
            "scale": "max",
            "weight_error": "max",
        }
    )
    shown = pd.concat([points[points.salient], maxima.assign(salient=False)], ignore_index=True)
    return shown.assign(width=shown.salient.map({True: 1, False: width})), width


def magnitudes(points: pd.DataFrame, measure: str) -> list[go.Scatter]:
    salient, regular = points[points.salient], points[~points.salient]
    after = [dots(points, "after", COMPRESSED, "After scaling", 4)] if is_scaled(points) else []
    name = f"Salient: the strongest {100 * SALIENT:g}%"
    return [
        dots(regular, "before", ORIGINAL, MEASURES[measure], 4),
        *after,
        dots(salient, "before", HIGHLIGHT, name, 8, symbol="diamond"),
    ]


def scales(points: pd.DataFrame) -> list[go.Scatter]:
    return lane_traces(points, "scale", REFERENCE, "y2") if is_scaled(points) else []


def weight_errors(points: pd.DataFrame) -> list[go.Scatter]:
    return lane_traces(points, "weight_error", ERROR, "y3" if is_scaled(points) else "y2")


def lane_traces(points: pd.DataFrame, column: str, color: str, axis: str) -> list[go.Scatter]:
    """One measure below the magnitudes, with the salient channels highlighted."""
    salient, regular = points[points.salient], points[~points.salient]
    return [
        dots(part, column, shade, "", size, axis=axis, symbol=symbol)
        for part, shade, size, symbol in (
            (regular, color, 4, "circle"),
            (salient, HIGHLIGHT, 8, "diamond"),
        )
    ]


def dots(
    points: pd.DataFrame,
    column: str,
    color: str,
    name: str,
    size: int,
    axis: str = "y",
    symbol: str = "circle",
) -> go.Scatter:
    style = {
        "mode": "markers",
        "marker": {"color": color, "size": size, "symbol": symbol},
        "name": name,
        "showlegend": bool(name),
    }
    return go.Scatter(
        x=points.place,
        y=points[column],
        yaxis=axis,
        hovertext=hover(points),
        hoverinfo="text",
        **style,
    )


def is_scaled(inputs: pd.DataFrame) -> bool:
    return bool((inputs.scale != 1).any())


def with_lanes(figure: go.Figure, lanes: list[Lane]) -> go.Figure:
    """Figure with these lanes, the first on top, all sharing the horizontal axis."""
    step = 1 / len(lanes)
    for number, lane in enumerate(lanes):
        axis = AXIS | {
            "domain": [1 - (number + 0.86) * step, 1 - number * step],
            "anchor": "x",
            "rangemode": "tozero",
            "title": AXIS["title"] | {"text": lane.title},
        }
        ticks = {"tickformat": PERCENT} if lane.percent else {}
        figure.update_layout({f"yaxis{number + 1 if number else ''}": axis | ticks})
    return figure.update_layout(xaxis={"anchor": f"y{len(lanes)}"})


def axis_title(by_strength: bool, width: int) -> str:
    order = "Input channels, strongest first (rank)" if by_strength else "Input channel (number)"
    return order + (f"<br>each dot is the largest of {width} neighbors" if width > 1 else "")


def hover(points: pd.DataFrame) -> list[str]:
    return [
        (
            f"{'channel' if row.width == 1 else f'the largest of {row.width}, from channel'} "
            f"{row.channel}<br>|x| {row.before:.3g}"
        )
        + (f", {row.after:.3g} after scaling by {row.scale:.3g}" if row.scale != 1 else "")
        + f"<br>weight error {percent(row.weight_error)}"
        for row in points.itertuples(index=False)
    ]


def description(inputs: pd.DataFrame) -> str:
    strongest = inputs.reset_index(drop=True).loc[inputs.magnitude.reset_index(drop=True).idxmax()]
    times = strongest.magnitude / max(inputs.magnitude.median(), 1e-30)
    words = (
        f"the strongest, channel {strongest.channel}, is {times:.1f} times the median. Its scale "
        f"is {strongest.scale:.3g}"
    )
    return f"{len(inputs)} input channels; {words}."


SALIENT_CHANNELS = Panel(
    question="Which input channels are salient, and how were they scaled?",
    caption=(
        "Each dot is an input channel on calibration data: the strength of its activations, the "
        "scale of its weights before rounding (divided out afterwards), and the change of these "
        "weights (‖w - ŵ‖/‖w‖). The strongest 1% are salient."
    ),
    draw=salient_channels,
    describe=description,
)
