"""Steps of a recipe: the bytes that each step removed, and the quality after it."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import plotly_text, short_label
from pages.formatting.numbers import change, megabytes, quality_number, two_decimals
from pages.panels.panel import Panel
from pages.panels.theme import (
    COMPRESSED,
    ORIGINAL,
    PERCENT,
    REFERENCE,
    SERIES,
    SYMBOLS,
    TEXT_ON_COLOR,
    base_figure,
    message_figure,
    translucent,
)

# pixels per step; share of it that is the bar; pixels from its center to the line of text
ROW, BAR, ABOVE = 64, 0.4, 24
SIZES, QUALITY = [0, 0.64], [0.72, 0.95]  # shares of the width
LONGEST = 46  # characters of a step's name that fit next to its number on a phone
TITLES = {"perplexity": "Perplexity<br>(lower is better)", "accuracy": "Accuracy (%)"}


def waterfall(steps: pd.DataFrame) -> go.Figure:
    """Rows of step_by_step: the original, then a bar for each step, largest on top; next to them a
    line of quality for each split.
    """
    if steps.empty:
        return message_figure("This run has no steps to show.")
    sizes, height = steps.drop_duplicates("step"), 90 + ROW * steps.step.nunique()
    figure = base_figure(height).add_traces(
        [removed_bars(sizes), size_bars(sizes), *quality_lines(steps)]
    )
    for row in sizes.itertuples():
        figure.add_annotation(
            text=step_label(row),
            x=0,
            y=row.step,
            xref="paper",
            yref="y",
            xanchor="left",
            yshift=ABOVE,
            showarrow=False,
            align="left",
        )
    title = {"text": TITLES[steps.quality_name.iloc[0]], "standoff": 14}
    side = figure.layout.xaxis.to_plotly_json() | {"domain": QUALITY, "anchor": "y", "title": title}
    figure.update_layout(xaxis2=side | quality_range(steps.quality), barmode="overlay")
    figure.update_xaxes(
        title_text="Size of the files (MB)",
        domain=SIZES,
        nticks=5,
        range=[0, sizes.size_bytes.max() / 1e6 * 1.02],
        selector=0,
    )
    return figure.update_yaxes(visible=False, range=[sizes.step.max() + 0.45, -0.75])


def size_bars(sizes: pd.DataFrame) -> go.Bar:
    """Sizes of the files after each step."""
    paint = {"color": [ORIGINAL if step == 0 else COMPRESSED for step in sizes.step]}
    words = {
        "textposition": "auto",
        "insidetextfont": {"color": TEXT_ON_COLOR},
        "insidetextanchor": "start",
        "textangle": 0,
        "constraintext": "none",
    }
    return go.Bar(
        y=sizes.step,
        x=sizes.size_bytes / 1e6,
        orientation="h",
        marker=paint,
        text=[size_text(row) for row in sizes.itertuples()],
        **words,
        width=BAR,
        name="Left",
        showlegend=False,
        hovertext=hover(sizes),
        hoverinfo="text",
    )


def removed_bars(sizes: pd.DataFrame) -> go.Bar:
    """Bytes removed by each step; zero if it added some."""
    removed = (sizes.size_bytes.shift() - sizes.size_bytes).fillna(0).clip(lower=0) / 1e6
    style = {
        "width": BAR,
        "marker": {"color": translucent(REFERENCE, 0.3)},
        "name": "Removed by the step",
        "showlegend": False,
    }
    return go.Bar(
        y=sizes.step,
        x=removed,
        base=sizes.size_bytes / 1e6,
        orientation="h",
        hovertext=hover(sizes),
        hoverinfo="text",
        **style,
    )


def quality_lines(steps: pd.DataFrame) -> list[go.Scatter]:
    """Line of quality for each split; the first one has numbers next to it."""
    splits = [rows for _, rows in steps.groupby("split", sort=False)]
    first, *others = (
        quality_line(
            rows, SERIES[number], f"{SYMBOLS[number]}{'-open' * bool(number)}", len(splits) > 1
        )
        for number, rows in enumerate(splits)
    )
    words = {
        "text": [quality_number(row.quality_name, row.quality) for row in splits[0].itertuples()],
        "textposition": text_positions(splits[0].quality.tolist()),
    }
    return [first.update(mode="lines+markers+text", **words), *others]


def quality_line(rows: pd.DataFrame, color: str, symbol: str, in_legend: bool) -> go.Scatter:
    style = {
        "marker": {"color": color, "symbol": symbol, "size": 9},
        "line": {"color": color, "width": 1.5},
        "mode": "lines+markers",
    }
    words = {
        "name": plotly_text(rows.split.iloc[0]).capitalize(),
        "hovertext": hover(rows),
        "hoverinfo": "text",
        "showlegend": in_legend,
    }
    return go.Scatter(x=rows.quality, y=rows.step, xaxis="x2", cliponaxis=False, **style, **words)


def text_positions(quality: list[float]) -> list[str]:
    """Side of the marker on which each number is drawn."""
    between = [
        text_position(*three) for three in zip(quality, quality[1:], quality[2:], strict=False)
    ]
    return ["top center", *between, "bottom center"][: len(quality)]


def text_position(before: float, value: float, after: float) -> str:
    """Away from the line, which comes from above and continues below."""
    if before < value > after:
        return "middle right"
    if before > value < after:
        return "middle left"
    return "top left" if before >= value else "bottom left"


def quality_range(quality: pd.Series) -> dict[str, Any]:
    """Range with room for the numbers next to the outermost markers; shares as percent."""
    margin = 0.35 * (quality.max() - quality.min()) or 0.05 * abs(quality.max()) or 1.0
    ticks = {"tickformat": PERCENT} if quality.max() <= 1 else {}
    return {"range": [quality.min() - margin, quality.max() + margin], "nticks": 3} | ticks


def step_label(row: Any) -> str:
    return "Original" if row.step == 0 else f"{row.step} · {short_label(row.technique, LONGEST)}"


def size_text(row: Any) -> str:
    """Size with its change from the previous step, such as "5.2 MB (-35%)"."""
    return megabytes(row.size_bytes) + (f" ({change(1.0, 1.0 - row.removed)})" if row.step else "")


def hover(rows: pd.DataFrame) -> list[str]:
    return [
        f"<b>{'Original' if row.step == 0 else plotly_text(row.technique)}</b><br>{size_text(row)}"
        f"<br>{two_decimals(row.bits_per_parameter)} bits per parameter, "
        f"{two_decimals(row.bits_per_weight)} per compressed weight"
        f"<br>{plotly_text(row.quality_name)} {quality_number(row.quality_name, row.quality)}, "
        f"{plotly_text(row.split)}"
        for row in rows.itertuples()
    ]


def description(steps: pd.DataFrame) -> str:
    first, last = (
        steps[steps.step == step].iloc[0] for step in (steps.step.min(), steps.step.max())
    )
    sizes = f"from {megabytes(first.size_bytes)} to {megabytes(last.size_bytes)}"
    before, after = (quality_number(row.quality_name, row.quality) for row in (first, last))
    return f"In {last.step} steps {sizes}, {first.quality_name} from {before} to {after}."


WATERFALL = Panel(
    question="Size and quality after each step",
    caption=(
        "Each bar is the file size after a step; the pale part is what that step removed. The "
        "line shows the quality of the model written by that step."
    ),
    draw=waterfall,
    describe=description,
)
