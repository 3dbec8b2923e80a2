"""Colors by meaning, and the frame every figure starts from.

Backgrounds are transparent, and text takes the page's own color: Streamlit writes its fonts into
the template and leaves alone what the figure itself sets. Every color has a contrast of at least
3:1 on white and on Streamlit's dark #0e1117; they are Okabe and Ito's set (Color Universal Design,
2008), darkened or lightened until they do.
"""

from typing import Any

import plotly.graph_objects as go

ORIGINAL = "#3489c9"
COMPRESSED = "#cc7a00"
ERROR = "#a274c4"
HIGHLIGHT = "#e0442e"
REFERENCE = "#858b95"
# for runs; symbols tell them apart too
SERIES = (ORIGINAL, COMPRESSED, "#109a72", "#c2619a", "#9a8700", "#7d78d8", "#c65a3a", REFERENCE)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
GRID = "rgba(133, 139, 149, 0.28)"
TEXT_ON_COLOR = "#0e1117"  # text on a colored tile
PALE = "#dbe7f1"  # the low end of a scale from ORIGINAL, on which such text is legible
PALE_ERROR = "#ece3f3"  # the same, of a scale from ERROR
PERCENT = ".3~p"  # d3: 0.125 -> 12.5%

# without Streamlit's theme, text is legible on both backgrounds
TEMPLATE = go.layout.Template(layout={"font": {"color": REFERENCE}})
AXIS: dict[str, Any] = {
    "showgrid": True,
    "gridcolor": GRID,
    "zeroline": False,
    "automargin": True,
    "ticks": "",
    "title": {"standoff": 14},
}
LEGEND = {
    "orientation": "h",
    "x": 0,
    "xanchor": "left",
    "y": 1,
    "yanchor": "bottom",
    "title": {"text": ""},
}


def base_figure(height: int = 360) -> go.Figure:
    """A figure without traces: transparent, narrow margins, legend above."""
    figure = go.Figure(
        layout={"template": TEMPLATE, "height": height, "legend": LEGEND, "hovermode": "closest"}
    )
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 8, "r": 12, "t": 12, "b": 8},
    )
    return figure.update_xaxes(AXIS).update_yaxes(AXIS)


def message_figure(text: str) -> go.Figure:
    """Figure with a sentence that explains why there is no data."""
    figure = base_figure(height=160).update_xaxes(visible=False).update_yaxes(visible=False)
    return figure.add_annotation(
        text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 14}
    )


def translucent(color: str, share: float) -> str:
    """The color with ``share`` of its opacity, 0 to 1."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {share})"
