"""Cumulative energy of one layer's singular values, with and without whitening."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import percent
from pages.panels.layers.singular_values import (
    VERSIONS,
    by_version,
    kept_rank,
    mark_kept_rank,
    spectrum_line,
)
from pages.panels.panel import Panel
from pages.panels.theme import base_figure, message_figure


def cumulative_energy(singular: pd.DataFrame) -> go.Figure:
    """Rows of SingularRow of one layer."""
    if singular.empty:
        return message_figure("This technique drops no singular values.")
    figure = base_figure(height=380).add_traces(
        [
            spectrum_line(rows, version, rows.cumulative_energy)
            for version, rows in by_version(singular)
        ]
    )
    mark_kept_rank(figure, singular, "bottom")
    figure.update_xaxes(title_text="Singular values kept (rank)", rangemode="tozero")
    return figure.update_yaxes(
        title_text="Cumulative energy (%)", tickformat=".0%", range=[0, 1.03]
    )


def description(singular: pd.DataFrame) -> str:
    cut = kept_rank(singular)
    shares = [
        (
            f"{percent(rows.cumulative_energy[rows['index'] == cut].max())} "
            f"({VERSIONS[version][0].lower()})"
        )
        for version, rows in by_version(singular)
    ]
    return f"The first {cut} singular values hold {', '.join(shares)} of the energy."


CUMULATIVE_ENERGY = Panel(
    question="How much energy do the kept singular values hold?",
    caption=(
        "The value at the cut is the share of squared singular values kept (cumulative "
        "energy). The faster a line rises, the lower a rank suffices."
    ),
    draw=cumulative_energy,
    describe=description,
)
