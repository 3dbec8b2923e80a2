"""Every run's size against its quality."""

from math import log10
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import plotly_text, short_label
from pages.formatting.numbers import megabytes, quality_number, two_decimals
from pages.panels.panel import Panel
from pages.panels.placement import label_sides
from pages.panels.theme import COMPRESSED, ORIGINAL, REFERENCE, base_figure, message_figure

UNCOMPRESSED = "Uncompressed"
TITLES = {
    "perplexity": "Perplexity (lower is better)",
    "accuracy": "Accuracy (%, higher is better)",
}
TICKS = {"accuracy": {"tickformat": ".2~%"}}  # runs may differ by less than a tenth of a percent
RIGHT_MARGIN = 1.08  # factor of the largest size, so that its marker is not cut off


def trade_off(runs: pd.DataFrame) -> go.Figure:
    """Draw size against quality of runs.

    Columns: run, label, model, size_bytes, compression, bits_per_weight, bits_per_parameter,
    quality, quality_name, best, group; one quality_name for all rows.
    """
    scored = runs.dropna(subset=["quality", "size_bytes"]).sort_values(
        "size_bytes", ignore_index=True
    )
    if scored.empty:
        return message_figure("No finished runs to compare yet.")
    figure = base_figure(height=420).add_traces([*pareto_lines(scored), *run_markers(scored)])
    figure.update_xaxes(
        title_text="Size of the weight files (MB)",
        range=[0, scored.size_bytes.max() / 1e6 * RIGHT_MARGIN],
    )
    return figure.update_yaxes(quality_axis(scored))


def pareto_lines(runs: pd.DataFrame) -> list[go.Scatter]:
    """Pareto line for each model and protocol, because runs of different ones are not
    comparable.
    """
    best, line = runs[runs.best.astype(bool)], {"color": COMPRESSED, "width": 1.5, "dash": "dot"}
    style = {
        "mode": "lines",
        "line": line,
        "name": "Best for their size",
        "legendgroup": "best",
        "hoverinfo": "skip",
    }
    lines = [rows for _, rows in best.groupby("group", sort=False)]
    return [
        go.Scatter(x=rows.size_bytes / 1e6, y=rows.quality, showlegend=not number, **style)
        for number, rows in enumerate(lines)
    ]


def run_markers(runs: pd.DataFrame) -> list[go.Scatter]:
    """Original, best and other runs, each with its own marker; empty groups are left out."""
    original, best = runs.label == UNCOMPRESSED, runs.best.astype(bool)
    groups = (
        (runs[original], "Uncompressed", {"color": ORIGINAL, "symbol": "diamond", "size": 13}),
        (runs[best & ~original], "Best runs", {"color": COMPRESSED, "size": 11}),
        (
            runs[~best & ~original],
            "Other runs",
            {"color": REFERENCE, "symbol": "circle-open", "size": 10, "line": {"width": 2}},
        ),
    )
    sides = label_positions(runs)
    return [
        markers(rows, name, marker, sides[rows.index])
        for rows, name, marker in groups
        if not rows.empty
    ]


def markers(rows: pd.DataFrame, name: str, marker: dict[str, Any], sides: pd.Series) -> go.Scatter:
    """Draw the markers; labels without room appear on hover only."""
    labels = [
        short_label(label) if side else "" for label, side in zip(rows.label, sides, strict=True)
    ]
    text = {
        "text": labels,
        "textposition": [side or "top right" for side in sides],
        "textfont": {"size": 11},
    }
    points = {
        "x": rows.size_bytes / 1e6,
        "y": rows.quality,
        "mode": "markers+text",
        "cliponaxis": False,
    }
    return go.Scatter(
        **points, **text, marker=marker, name=name, hovertext=hover(rows), hoverinfo="text"
    )


def label_positions(runs: pd.DataFrame) -> pd.Series:
    """Side of the marker for each run's label, "" without room. The original and the best runs have
    priority.
    """
    order = runs.assign(original=runs.label == UNCOMPRESSED).sort_values(
        ["original", "best"], ascending=False, kind="stable"
    )
    x, y = order.size_bytes / (runs.size_bytes.max() * RIGHT_MARGIN), heights(order)
    return pd.Series(
        label_sides(list(zip(x, y, strict=True)), [short_label(label) for label in order.label]),
        index=order.index,
    )


def heights(runs: pd.DataFrame) -> pd.Series:
    """Vertical positions of the markers, as shares of the plot's height."""
    quality = runs.quality.map(log10) if needs_log(runs) else runs.quality
    reach = quality.max() - quality.min()
    return 0.06 + 0.88 * (quality - quality.min()) / reach if reach else quality * 0 + 0.5


def needs_log(runs: pd.DataFrame) -> bool:
    """Return True if perplexities differ by more than ten times, so that one broken run does not
    flatten the others.
    """
    return (
        runs.quality_name.iloc[0] == "perplexity"
        and runs.quality.max() > 10 * runs.quality.min() > 0
    )


def hover(runs: pd.DataFrame) -> list[str]:
    return [
        f"<b>{plotly_text(row.label)}</b><br>{plotly_text(row.model)}<br>"
        f"{megabytes(row.size_bytes)}, "
        f"{row.compression:.3g}x smaller"
        f"<br>{two_decimals(row.bits_per_parameter)} bits per parameter, "
        f"{two_decimals(row.bits_per_weight)} per compressed weight"
        f"<br>{plotly_text(row.quality_name)} {quality_number(row.quality_name, row.quality)}"
        f"<br>run {plotly_text(str(row.run))}"
        for row in runs.itertuples()
    ]


def quality_axis(runs: pd.DataFrame) -> dict[str, Any]:
    name = runs.quality_name.iloc[0]
    scale = {"type": "log", "dtick": 1} if needs_log(runs) else TICKS.get(name, {})
    one = runs.quality.iloc[0]
    single_value_range = (
        {"range": [one - 0.05, one + 0.05]}
        if name == "accuracy" and (runs.quality == one).all()
        else {}
    )
    return {
        "title": {
            "text": TITLES.get(name, plotly_text(name)) + (", log scale" if needs_log(runs) else "")
        },
        **scale,
        **single_value_range,
    }


def description(runs: pd.DataFrame) -> str:
    smallest = runs.iloc[runs.size_bytes.argmin()]
    named = (
        f"{smallest.label} at {megabytes(smallest.size_bytes)} with {smallest.quality_name} "
        f"{quality_number(smallest.quality_name, smallest.quality)}"
    )
    return (
        f"{len(runs)} runs, {int(runs.best.sum())} of them best for their size; the smallest is "
        f"{named}."
    )


TRADE_OFF = Panel(
    question="Size against quality",
    caption=(
        "Left is smaller. A dotted line joins the runs of one model and protocol that no other "
        "beats in both size and quality (Pareto front). Overlapping labels appear on hover."
    ),
    draw=trade_off,
    describe=description,
)
