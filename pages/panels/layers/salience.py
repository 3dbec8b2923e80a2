"""Quality with a few salient input channels kept in 16 bits, or scaled before rounding."""

import pandas as pd
import plotly.graph_objects as go

from pages.panels.panel import Panel
from pages.panels.theme import (
    AXIS,
    COMPRESSED,
    ORIGINAL,
    REFERENCE,
    SERIES,
    base_figure,
    message_figure,
)

CRITERIA = {
    "activations": ("by activation", COMPRESSED, "circle"),
    "weights": ("by weight", ORIGINAL, "square"),
    "random": ("at random", SERIES[2], "x"),
}
SCORES = {"perplexity": "Perplexity", "accuracy": "Accuracy", "loss": "Loss"}


def salience(variants: pd.DataFrame) -> go.Figure:
    """Rows of SalienceRow: channels kept in 16 bits on the left, scaled ones on the right, with a
    common quality axis.
    """
    if variants.empty:
        return message_figure("This run is not a salient-weights experiment.")
    score = score_name(variants)
    figure = base_figure(height=400).add_traces(
        [
            *(kept_channels_curve(variants, by, score) for by in CRITERIA),
            all_rounded_line(variants, score),
            scaled_channels_curve(variants, score),
        ]
    )
    figure.update_layout(
        xaxis={"domain": [0, 0.56]}, xaxis2=AXIS | {"domain": [0.66, 1], "anchor": "y"}
    )
    figure.update_xaxes(
        title_text="Input channels kept in 16 bits (%)", type="category", selector={"anchor": None}
    )
    figure.update_layout(
        xaxis2={"title": {"text": "Scale of the strongest 1%"}, "type": "category"}
    )
    return figure.update_yaxes(
        title_text=f"{SCORES[score]} ({'higher' if score == 'accuracy' else 'lower'} is better)"
    )


def score_name(variants: pd.DataFrame) -> str:
    return next(name for name in SCORES if variants[name].notna().any())


def kept_channels_curve(variants: pd.DataFrame, by: str, score: str) -> go.Scatter:
    rows, (words, color, symbol) = variants[variants.kept_by == by], CRITERIA[by]
    style = {
        "marker": {"color": color, "symbol": symbol, "size": 10},
        "line": {"color": color, "width": 2},
    }
    return go.Scatter(
        x=share_labels(rows.share),
        y=rows[score],
        mode="lines+markers",
        name=f"kept {words}",
        hovertext=hover(rows, score),
        hoverinfo="text",
        **style,
    )


def all_rounded_line(variants: pd.DataFrame, score: str) -> go.Scatter:
    rows = variants[(variants.kept_by == "") & (variants.share == 0)]
    value, ends = (
        rows[score].iloc[0],
        share_labels(variants.share[variants.kept_by != ""].drop_duplicates()),
    )
    line = {"color": REFERENCE, "width": 2, "dash": "dash"}
    return go.Scatter(
        x=ends,
        y=[value] * len(ends),
        mode="lines",
        name="all rounded",
        line=line,
        hovertext=f"all rounded: {value:.4g}",
        hoverinfo="text",
    )


def scaled_channels_curve(variants: pd.DataFrame, score: str) -> go.Scatter:
    rows = variants[(variants.kept_by == "") & (variants.share > 0)]
    marker = {"color": [COMPRESSED if chosen else REFERENCE for chosen in rows.chosen]}
    return go.Scatter(
        x=[f"{scale:g}" for scale in rows.scale],
        y=rows[score],
        xaxis="x2",
        mode="lines+markers",
        name="scaled, then rounded",
        marker=marker | {"size": 11, "symbol": "diamond"},
        line={"color": REFERENCE, "width": 1},
        hovertext=hover(rows, score),
        hoverinfo="text",
    )


def share_labels(values: pd.Series) -> list[str]:
    return [f"{100 * value:g}" for value in values]


def hover(rows: pd.DataFrame, score: str) -> list[str]:
    return [
        (
            f"{SCORES[score]} {getattr(row, score):.4g}<br>{row.bits_per_weight:.2f} bits per "
            f"weight<br>output error {100 * row.output_error:.3g}%"
        )
        for row in rows.itertuples(index=False)
    ]


def description(variants: pd.DataFrame) -> str:
    score, plain_row = (
        score_name(variants),
        variants[(variants.kept_by == "") & (variants.share == 0)],
    )
    by = variants[variants.kept_by != ""].sort_values("share").groupby("kept_by")[score].last()
    return (
        f"{SCORES[score]} {plain_row[score].iloc[0]:.4g} with all channels rounded; with the most "
        "channels kept, "
    ) + ", ".join(f"{value:.4g} {CRITERIA[name][0]}" for name, value in by.items())


SALIENCE = Panel(
    question="Is protecting a small share of the weights enough?",
    caption=(
        "Left: a few input channels of every layer stay in 16 bits, chosen by activation "
        "strength, by weight magnitude, or at random; the dashed line has all channels rounded. "
        "Right: the strongest 1% are scaled up before rounding and divided afterwards; the "
        "orange one is the model that was kept."
    ),
    draw=salience,
    describe=description,
)
