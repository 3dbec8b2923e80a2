"""Singular values of one layer before and after whitening, with the cut."""

import pandas as pd
import plotly.graph_objects as go

from pages.panels.panel import Panel
from pages.panels.theme import COMPRESSED, HIGHLIGHT, ORIGINAL, SERIES, base_figure, message_figure

VERSIONS = {
    "plain": ("Weights", ORIGINAL, "solid"),
    "whitened": ("Whitened", COMPRESSED, "solid"),
    "randomized": ("Randomized SVD", SERIES[2], "dot"),
}


def singular_values(singular: pd.DataFrame) -> go.Figure:
    """Rows of SingularRow of one layer."""
    if singular.empty:
        return message_figure("This technique drops no singular values.")
    figure = base_figure(height=380).add_traces(
        [
            spectrum_line(rows, version, rows.singular_value)
            for version, rows in by_version(singular)
        ]
    )
    mark_kept_rank(figure, singular)
    figure.update_xaxes(title_text="Singular value (number), largest first", rangemode="tozero")
    return figure.update_yaxes(
        title_text="Singular value (relative to the largest)",
        type="log",
        exponentformat="power",
        nticks=6,
    )


def by_version(singular: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [
        (version, singular[singular.version == version])
        for version in VERSIONS
        if (singular.version == version).any()
    ]


def spectrum_line(rows: pd.DataFrame, version: str, values: pd.Series) -> go.Scatter:
    name, color, dash = VERSIONS[version]
    hover = [
        (
            f"{name}<br>singular value {row.index}: {row.singular_value:.3g} of the "
            f"largest<br>{100 * row.cumulative_energy:.1f}% of the energy up to here"
        )
        for row in rows.itertuples(index=False)
    ]
    line = {"color": color, "width": 2.5, "dash": dash}
    return go.Scatter(
        x=rows["index"],
        y=values,
        mode="lines",
        line=line,
        name=name,
        hovertext=hover,
        hoverinfo="text",
    )


def kept_rank(singular: pd.DataFrame) -> int:
    """Index of the last singular value that is kept."""
    return int(singular["index"][singular.kept].max()) if singular.kept.any() else 0


def mark_kept_rank(figure: go.Figure, singular: pd.DataFrame, side: str = "top") -> None:
    """Line at the cut, labeled where no curve is."""
    cut, last = kept_rank(singular), singular["index"].max()
    edge = {
        "line_color": HIGHLIGHT,
        "line_dash": "dash",
        "annotation_text": f"rank {cut}",
        "annotation_font_color": HIGHLIGHT,
    }
    figure.add_vline(
        x=cut + 0.5, annotation_position=f"{side} {'left' if cut > last / 2 else 'right'}", **edge
    )


def description(singular: pd.DataFrame) -> str:
    ends = ", ".join(
        f"{VERSIONS[version][0].lower()}: the last is {rows.singular_value.min():.2g} of the first"
        for version, rows in by_version(singular)
    )
    return f"{singular['index'].max()} singular values, {kept_rank(singular)} of them kept; {ends}."


SINGULAR_VALUES = Panel(
    question="Singular values of this layer",
    caption=(
        "Each point is a singular value of the layer. The steeper a line falls, the less is lost "
        "right of the cut; whitening makes it steeper, because inputs do not use all directions "
        "equally."
    ),
    draw=singular_values,
    describe=description,
)
