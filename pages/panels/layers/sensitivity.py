"""Sensitivity of the model to each layer's rounding, at every number of bits."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import layer_axis, plotly_text, short_layer_name
from pages.formatting.numbers import megabytes, short_number
from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, ERROR, GRID, base_figure, message_figure

MAX_LAYERS = 60
SMALLEST_SHIFT = 1e-7  # nats: smaller values are drawn there


def sensitivity(settings: pd.DataFrame) -> go.Figure:
    """Rows of SensitivityRow. Beyond 60 layers only the most sensitive are drawn."""
    if settings.empty:
        return message_figure("No sensitivities were measured in this run.")
    shown = most_sensitive(settings.reset_index(drop=True))
    names = shown.layer.drop_duplicates()
    figure = base_figure(height=120 + 24 * len(names))
    figure.add_traces(
        [
            range_lines(shown),
            *(dots(shown[shown.chosen == chosen], chosen) for chosen in (False, True)),
            other_measure_markers(shown),
        ]
    )
    figure.update_yaxes(layer_axis(names), showgrid=True, gridcolor=GRID)
    return figure.update_xaxes(
        type="log",
        title_text="KL divergence of the model's predictions (nats)",
        exponentformat="power",
        nticks=6,
    )


def most_sensitive(settings: pd.DataFrame) -> pd.DataFrame:
    worst = (
        complete_measure(settings).groupby(settings.layer, sort=False).max().nlargest(MAX_LAYERS)
    )
    return settings[settings.layer.isin(worst.index)]


def complete_measure(settings: pd.DataFrame) -> pd.Series:
    """The measure that was computed for every setting."""
    return settings.quantize_one if settings.quantize_one.notna().all() else settings.restore_one


def range_lines(settings: pd.DataFrame) -> go.Scatter:
    """Thin line from a layer's smallest to its largest damage."""
    ends = (
        complete_measure(settings)
        .clip(lower=SMALLEST_SHIFT)
        .groupby(settings.layer, sort=False)
        .agg(["min", "max"])
    )
    x = [value for low, high in ends.itertuples(index=False) for value in (low, high, None)]
    y = [name for name in ends.index for _ in range(3)]
    return go.Scatter(
        x=x, y=y, mode="lines", line={"color": GRID, "width": 3}, showlegend=False, hoverinfo="skip"
    )


def dots(settings: pd.DataFrame, chosen: bool) -> go.Scatter:
    marker = {
        "size": 19 if chosen else 15,
        "color": COMPRESSED if chosen else "rgba(133, 139, 149, 0.35)",
    }
    return go.Scatter(
        x=complete_measure(settings).clip(lower=SMALLEST_SHIFT),
        y=settings.layer,
        mode="markers+text",
        marker=marker,
        text=settings.bits.astype(str),
        textfont={"size": 11, "color": "#0e1117" if chosen else None},
        hovertext=hover(settings),
        hoverinfo="text",
        name="Chosen bits" if chosen else "Other candidates",
        showlegend=not settings.empty,
    )


def other_measure_markers(settings: pd.DataFrame) -> go.Scatter:
    """The other measure, computed for the coarsest setting only."""
    other = (
        settings.restore_one
        if complete_measure(settings).name == "quantize_one"
        else settings.quantize_one
    )
    measured = settings[other.notna()]
    marker = {"symbol": "diamond-open", "size": 9, "color": ERROR, "line": {"width": 2}}
    name = (
        "Saved by restoring this layer"
        if other.name == "restore_one"
        else "Only this layer rounded"
    )
    x = other[other.notna()].clip(lower=SMALLEST_SHIFT)
    return go.Scatter(
        x=x,
        y=measured.layer,
        mode="markers",
        marker=marker,
        name=name,
        hovertext=hover(measured),
        hoverinfo="text",
        showlegend=len(measured) > 0,
    )


def hover(settings: pd.DataFrame) -> list[str]:
    return [
        f"<b>{plotly_text(row.layer)}</b><br>{row.bits} bits, {plotly_text(row.scheme)}, "
        f"{plotly_text(row.range)}: "
        f"{megabytes(row.size_bytes)}"
        f"<br>only this layer rounded {nats_text(row.quantize_one)}"
        "<br>added when all others are rounded "
        f"{nats_text(row.restore_one)}"
        for row in settings.itertuples(index=False)
    ]


def nats_text(value: float) -> str:
    return "not measured" if value != value else f"{short_number(1000 * value)} millinats"


def description(settings: pd.DataFrame) -> str:
    plain = settings.reset_index(drop=True)
    worst = plain.loc[complete_measure(plain).idxmax()]
    spread = plain[plain.chosen].bits
    return (
        f"{plain.layer.nunique()} layers; the most sensitive is "
        f"{short_layer_name(worst.layer, 80)}. Layers got {spread.min()} to {spread.max()} bits."
    )


SENSITIVITY = Panel(
    question="Which layers are most sensitive to rounding?",
    caption=(
        "Each disc is a candidate number of bits; its position is the KL divergence on calibration "
        "data when only that layer is rounded, or the measure chosen in the recipe. Orange discs "
        "were chosen within the budget. Diamonds show the other measure at the fewest bits."
    ),
    draw=sensitivity,
    describe=description,
)
