"""Bits of each layer, and how sensitive the model is to its rounding."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import layer_axis, plotly_text, short_layer_name
from pages.formatting.numbers import megabytes, short_number
from pages.panels.panel import Panel
from pages.panels.theme import (
    AXIS,
    COMPRESSED,
    ERROR,
    GRID,
    ORIGINAL,
    REFERENCE,
    base_figure,
    message_figure,
)

MAX_LAYERS = 60
SMALLEST_DAMAGE = 1e-7  # nats: smaller values are drawn there


def bits_per_layer(layers: pd.DataFrame, *, sensitivity: pd.DataFrame | None = None) -> go.Figure:
    """Rows of LayerRow. With rows of SensitivityRow, both sensitivity measures are drawn too.
    Beyond 60 layers, the largest are drawn.
    """
    counted = layers[layers.tied_to == ""].reset_index(drop=True)
    if counted.empty:
        return message_figure("There are no layers to show.")
    shown = largest_in_order(counted)
    felt = fully_measured(sensitivity, shown)
    figure = base_figure(height=130 + 22 * len(shown)).update_layout(bargap=0.25, barmode="overlay")
    figure.add_traces([*bars(shown), *damage_traces(felt)])
    figure.update_layout(
        yaxis=layer_axis(shown.name) | {"showgrid": not felt.empty, "gridcolor": GRID}
    )
    figure.update_xaxes(
        title_text=bits_title(len(shown), len(counted)),
        range=[0, 1.15 * shown.bits_per_weight.max()],
        domain=[0, 1 if felt.empty else 0.5],
    )
    return figure if felt.empty else figure.update_layout(xaxis2=damage_axis())


def largest_in_order(layers: pd.DataFrame) -> pd.DataFrame:
    return layers.loc[layers.size_bytes.nlargest(MAX_LAYERS).index.sort_values()]


def bars(layers: pd.DataFrame) -> list[go.Bar]:
    kept = layers.technique == ""
    parts = [(layers[~kept], COMPRESSED, "Compressed"), (layers[kept], ORIGINAL, "Unchanged")]
    return [bar(part, color, name) for part, color, name in parts if not part.empty]


def bar(layers: pd.DataFrame, color: str, name: str) -> go.Bar:
    style = {
        "orientation": "h",
        "marker": {"color": color},
        "name": name,
        "hovertext": hover(layers),
        "hoverinfo": "text",
    }
    words = {
        "text": [f"{bits:.3g}" for bits in layers.bits_per_weight],
        "textposition": "outside",
        "textfont": {"size": 11},
        "cliponaxis": False,
    }
    return go.Bar(y=layers.name, x=layers.bits_per_weight, **style, **words)


def hover(layers: pd.DataFrame) -> list[str]:
    return [
        (
            f"<b>{plotly_text(row.name)}</b><br>{row.bits_per_weight:.3g} bits per weight, scales "
            f"included<br>{megabytes(row.size_bytes)}"
        )
        for row in layers.itertuples(index=False)
    ]


def fully_measured(sensitivity: pd.DataFrame | None, layers: pd.DataFrame) -> pd.DataFrame:
    """Settings for which both measures were computed: the coarsest of each layer."""
    if sensitivity is None:
        return pd.DataFrame()
    measured = sensitivity[sensitivity.layer.isin(layers.name)].dropna(
        subset=["quantize_one", "restore_one"]
    )
    return measured.drop_duplicates("layer", ignore_index=True)


def damage_traces(sensitivity: pd.DataFrame) -> list[go.Scatter]:
    if sensitivity.empty:
        return []
    return [
        connecting_lines(sensitivity),
        damage_markers(sensitivity, "quantize_one", "circle", "Only this layer rounded"),
        damage_markers(sensitivity, "restore_one", "diamond-open", "Saved by restoring this layer"),
    ]


def connecting_lines(sensitivity: pd.DataFrame) -> go.Scatter:
    """Thin line between both measures."""
    ends = sensitivity[["quantize_one", "restore_one"]].clip(lower=SMALLEST_DAMAGE)
    x = [value for pair in ends.itertuples(index=False) for value in (*pair, None)]
    y = [name for name in sensitivity.layer for _ in range(3)]
    return go.Scatter(
        x=x,
        y=y,
        xaxis="x2",
        mode="lines",
        line={"color": REFERENCE, "width": 1},
        showlegend=False,
        hoverinfo="skip",
    )


def damage_markers(sensitivity: pd.DataFrame, column: str, symbol: str, name: str) -> go.Scatter:
    style = {
        "mode": "markers",
        "marker": {
            "color": ERROR,
            "symbol": symbol,
            "size": 9,
            "line": {"width": 2, "color": ERROR},
        },
        "name": name,
    }
    text = [
        (
            f"<b>{plotly_text(row.layer)}</b><br>at {row.bits} bits: {name.lower()} "
            f"{short_number(1000 * getattr(row, column))} millinats"
        )
        for row in sensitivity.itertuples()
    ]
    return go.Scatter(
        x=sensitivity[column].clip(lower=SMALLEST_DAMAGE),
        y=sensitivity.layer,
        xaxis="x2",
        hovertext=text,
        hoverinfo="text",
        **style,
    )


def damage_axis() -> dict[str, Any]:
    return AXIS | {
        "domain": [0.56, 1],
        "anchor": "y",
        "type": "log",
        "exponentformat": "power",
        "nticks": 4,
        "title": AXIS["title"] | {"text": "KL divergence (nats)"},
    }


def bits_title(shown: int, total: int) -> str:
    return "Bits (per weight)" + (f"<br>{shown} largest of {total} layers" if shown < total else "")


def description(layers: pd.DataFrame) -> str:
    compressed = layers[layers.technique != ""].reset_index(drop=True)
    if compressed.empty:
        return f"All {len(layers)} layers are unchanged."
    highest, lowest = (
        compressed.loc[compressed.bits_per_weight.idxmax()],
        compressed.loc[compressed.bits_per_weight.idxmin()],
    )
    return (
        f"{len(compressed)} compressed layers; from {lowest.bits_per_weight:.3g} bits per weight "
        f"({short_layer_name(lowest['name'], 80)}) "
        f"to {highest.bits_per_weight:.3g} ({short_layer_name(highest['name'], 80)})."
    )


BITS_PER_LAYER = Panel(
    question="How many bits did each layer get, and why?",
    caption=(
        "Bars are the bits per weight in the file, scales included. Next to them, where measured, "
        "the damage at the fewest bits: the KL divergence when only this layer is rounded, and "
        "the divergence saved when only this layer is not."
    ),
    draw=bits_per_layer,
    describe=description,
)
