"""The experiment on lottery tickets: sparse networks trained from rewound weights, and their
controls.
"""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import percent
from pages.panels.panel import Panel
from pages.panels.theme import (
    PERCENT,
    REFERENCE,
    SERIES,
    SYMBOLS,
    base_figure,
    message_figure,
    translucent,
)

VARIANTS = {  # stored values and their labels
    "winning ticket": "winning ticket",
    "other first weights": "other initial weights",
    "random mask": "random mask",
}


def lottery(networks: pd.DataFrame) -> go.Figure:
    """Rows of LotteryRow: means over the seeds, with bands from the lowest to the highest
    accuracy.
    """
    if networks.empty:
        return message_figure("This run has no lottery tickets.")
    curves = {name: accuracy_by_round(networks, variant) for variant, name in VARIANTS.items()}
    traces = [
        (accuracy_band(curve, number), mean_line(curve, number, name))
        for number, (name, curve) in enumerate(curves.items())
    ]
    figure = base_figure(height=420).add_traces([trace for pair in traces for trace in pair])
    dense = networks[networks.variant == "dense"].accuracy.mean()
    figure.add_hline(
        y=dense,
        line={"color": REFERENCE, "width": 1, "dash": "dash"},
        annotation={"text": "all weights", "xanchor": "right"},
    )
    ticks = sorted(networks.left.round(4).unique())
    figure.update_xaxes(
        title_text="Weights remaining (%, log)",
        type="log",
        autorange="reversed",
        tickvals=ticks,
        ticktext=[percent(tick) for tick in ticks],
    )
    return figure.update_yaxes(title_text="Accuracy, held out (%)", tickformat=PERCENT)


def accuracy_by_round(networks: pd.DataFrame, variant: str) -> pd.DataFrame:
    """left, mean, min, max and count of each round"""
    rows = networks[networks.variant == variant]
    return rows.groupby("round").agg(
        left=("left", "mean"),
        **{name: ("accuracy", name) for name in ("mean", "min", "max", "count")},
    )


def accuracy_band(curve: pd.DataFrame, number: int) -> go.Scatter:
    """Range over all seeds."""
    there, back = curve, curve[::-1]
    style = {
        "fill": "toself",
        "fillcolor": translucent(SERIES[number], 0.18),
        "line": {"width": 0},
        "mode": "lines",
    }
    return go.Scatter(
        x=[*there.left, *back.left],
        y=[*there["min"], *back["max"]],
        hoverinfo="skip",
        showlegend=False,
        **style,
    )


def mean_line(curve: pd.DataFrame, number: int, name: str) -> go.Scatter:
    color = SERIES[number]
    style = {
        "mode": "lines+markers",
        "line": {"color": color, "width": 2},
        "marker": {"color": color, "size": 8, "symbol": SYMBOLS[number]},
    }
    return go.Scatter(
        x=curve.left,
        y=curve["mean"],
        name=name.capitalize(),
        hovertext=hover(curve, name),
        hoverinfo="text",
        **style,
    )


def hover(curve: pd.DataFrame, name: str) -> list[str]:
    return [
        f"<b>{name}</b>, round {number}<br>{percent(left)} of the weights remaining<br>accuracy "
        f"{percent(middle)}"
        f"<br>{percent(lowest)} to {percent(highest)} in {seeds} seeds"
        for number, left, middle, lowest, highest, seeds in curve.itertuples()
    ]


def description(networks: pd.DataFrame) -> str:
    last = networks[networks["round"] == networks["round"].max()]
    means = last.groupby("variant").accuracy.mean()
    accuracies = ", ".join(
        f"{name} {percent(means[variant])}"
        for variant, name in {**VARIANTS, "dense": "dense"}.items()
        if variant in means
    )
    return (
        f"With {percent(last.left.mean())} of the weights remaining, mean accuracy: {accuracies}."
    )


LOTTERY = Panel(
    question="Does a small network train as well from scratch?",
    caption=(
        "Each mark is the mean accuracy of networks trained from scratch with this share of "
        "weights; the band spans the seeds. If winning tickets stay high while equally sparse "
        "controls drop, both mask and initial weights matter. The dashed line is the dense network."
    ),
    draw=lottery,
    describe=description,
)
