"""Latency before and after, where a kernel ran."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import plotly_text, short_layer_name
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, GRID, ORIGINAL, base_figure, message_figure

COLORS = {"original": ORIGINAL, "compressed": COMPRESSED}
SYMBOLS = {"original": "circle", "compressed": "diamond"}


def speed(latency: pd.DataFrame) -> go.Figure:
    """Rows of LatencyRow; those without a kernel have no numbers and are not drawn."""
    timed = latency[latency.kernel != ""].reset_index(drop=True)
    if timed.empty:
        return message_figure("No kernel ran on this machine, so no latency was measured.")
    labels = [case_label(row) for row in timed.itertuples()]
    names = list(dict.fromkeys(labels))
    figure = base_figure(height=130 + 34 * len(names)).add_traces(
        [range_lines(timed, labels), *(dots(timed, labels, version) for version in COLORS)]
    )
    figure.update_yaxes(
        type="category", autorange="reversed", categoryorder="array", categoryarray=names
    )
    # steps between do not fit on a phone
    decades = {"dtick": 1} if timed.median_ms.max() > 30 * timed.median_ms.min() else {"nticks": 8}
    return figure.update_xaxes(type="log", title_text="One forward pass (milliseconds)", **decades)


def case_label(row: Any) -> str:
    return f"{short_layer_name(row.what, 40)}<br>{plotly_text(row.shape)}"


def range_lines(timed: pd.DataFrame, labels: list[str]) -> go.Scatter:
    """Line from the fastest to the slowest version."""
    ends = timed.median_ms.groupby(pd.Series(labels), sort=False).agg(["min", "max"])
    x = [value for low, high in ends.itertuples(index=False) for value in (low, high, None)]
    y = [name for name in ends.index for _ in range(3)]
    return go.Scatter(
        x=x, y=y, mode="lines", line={"color": GRID, "width": 3}, showlegend=False, hoverinfo="skip"
    )


def dots(timed: pd.DataFrame, labels: list[str], version: str) -> go.Scatter:
    """Medians, with the quartiles as whiskers."""
    of_version = timed.version == version
    rows = timed[of_version]
    whiskers = {
        "type": "data",
        "symmetric": False,
        "array": rows.high_ms - rows.median_ms,
        "arrayminus": rows.median_ms - rows.low_ms,
        "width": 5,
    }
    marker = {"color": COLORS[version], "symbol": SYMBOLS[version], "size": 11}
    y = [label for label, shown in zip(labels, of_version, strict=True) if shown]
    hover = [latency_text(row) for row in rows.itertuples()]
    return go.Scatter(
        x=rows.median_ms,
        y=y,
        error_x=whiskers,
        mode="markers",
        marker=marker,
        name=version.capitalize(),
        hovertext=hover,
        hoverinfo="text",
    )


def latency_text(row: Any) -> str:
    difference = (
        f"<br>outputs differ from the measured ones by {row.difference:.1g} of their size"
        if row.difference == row.difference
        else ""
    )
    threads = f"{row.threads} thread{'s' * (row.threads > 1)}"
    return (
        f"<b>{plotly_text(row.what)}</b>, {row.version}<br>{plotly_text(row.kernel)}, "
        f"{plotly_text(row.shape)}, "
        f"{threads}<br>median {row.median_ms:.3g} ms, "
        f"middle half {row.low_ms:.3g} to {row.high_ms:.3g} ms ({row.repeats} "
        f"repetitions){difference}"
    )


def description(latency: pd.DataFrame) -> str:
    timed = latency[latency.kernel != ""]
    if timed.empty:
        return f"No kernel ran on this machine ({len(latency)} reason{'s' * (len(latency) > 1)})."
    first = timed[
        (timed["what"] == timed["what"].iloc[0]) & (timed["shape"] == timed["shape"].iloc[0])
    ]
    medians = ", ".join(f"{row.version} {row.median_ms:.3g} ms" for row in first.itertuples())
    return f"{first['what'].iloc[0]}, {first['shape'].iloc[0]}: {medians} (median)."


SPEED = Panel(
    question="Latency on this machine",
    caption=(
        "Median latency of one forward pass on this machine, both versions in alternation; "
        "whiskers cover the middle half of the repetitions. Only real kernels on stored codes are "
        "timed, and slow cases are left out."
    ),
    draw=speed,
    describe=description,
)
