"""Rank of each layer, compared with its break-even rank."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import layer_axis, plotly_text, short_layer_name
from pages.formatting.numbers import percent
from pages.panels.layers.rank_bars import bars, first_layers, rank_frame, rank_markers, rank_title
from pages.panels.panel import Panel
from pages.panels.theme import message_figure


def rank_per_layer(ranks: pd.DataFrame) -> go.Figure:
    """Rows of RankRow, in the model's order; beyond 60 the first are drawn."""
    if ranks.empty:
        return message_figure("No layer was factorized.")
    shown = first_layers(ranks)
    figure = rank_frame(shown).add_traces(
        [*bars(shown, ("Rank kept", "Unchanged"), hover), *comparison_markers(shown)]
    )
    figure.update_layout(yaxis=layer_axis(shown.layer) | {"showgrid": False})
    return figure.update_xaxes(title_text=rank_title(shown, ranks), rangemode="tozero")


def comparison_markers(ranks: pd.DataFrame) -> list[go.Scatter]:
    """Markers of the break-even rank, or of the second rank if there are two."""
    even, other = ranks.dropna(subset="break_even"), ranks.dropna(subset="input_rank")
    parts = [
        (even, even.break_even, "Break-even rank", "diamond"),
        (other, other.input_rank, "Input rank", "x"),
    ]
    return [
        rank_markers(rows, values, name, hover, symbol)
        for rows, values, name, symbol in parts
        if not rows.empty
    ]


def hover(ranks: pd.DataFrame) -> list[str]:
    return [
        f"<b>{plotly_text(row.layer)}</b><br>rank {row.rank} of "
        f"{row.full_rank}{comparison_text(row)}<br>"
        f"{percent(row.kept_parameters)} of the parameters kept, "
        f"{percent(max(0.0, 1 - row.kept_parameters))} removed<br>"
        f"{percent(row.kept_energy)} of the energy kept"
        for row in ranks.itertuples(index=False)
    ]


def comparison_text(row: Any) -> str:
    if row.input_rank == row.input_rank:  # not NaN
        return f" along outputs, {row.input_rank:.0f} along inputs"
    return f", break-even {row.break_even:.1f}"


def description(ranks: pd.DataFrame) -> str:
    cut = ranks[~ranks.whole].reset_index(drop=True)
    if cut.empty:
        return f"All {len(ranks)} layers are unchanged."
    smallest, largest = (
        cut.loc[index] for index in (cut.kept_parameters.idxmin(), cut.kept_parameters.idxmax())
    )
    return (
        f"{len(cut)} of {len(ranks)} layers were factorized; "
        f"{short_layer_name(smallest.layer, 80)} keeps {percent(smallest.kept_parameters)} of its "
        f"parameters at rank {smallest['rank']}, {short_layer_name(largest.layer, 80)} "
        f"{percent(largest.kept_parameters)} at rank {largest['rank']}."
    )


RANK_PER_LAYER = Panel(
    question="Which rank did each layer get?",
    caption=(
        "Bars are the ranks of the layers, diamonds their break-even ranks, at which the factors "
        "are as large as the layer: a bar must end left of its diamond to save bytes."
    ),
    draw=rank_per_layer,
    describe=description,
)
