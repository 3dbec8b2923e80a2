"""GPTQ column by column: each column is rounded, and its error is compensated by the columns after
it.
"""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages.formatting.numbers import percent
from pages.panels.panel import Panel
from pages.panels.theme import (
    AXIS,
    COMPRESSED,
    HIGHLIGHT,
    PERCENT,
    REFERENCE,
    base_figure,
    message_figure,
    translucent,
)
from pages.panels.weights.weight_map import DIVERGING

GPTQ_LANE, PLAIN_LANE, ERROR_LANE = (0.72, 0.96), (0.41, 0.65), (0.0, 0.23)
INSTANT = {
    "mode": "immediate",
    "frame": {"duration": 0, "redraw": True},
    "transition": {"duration": 0},
}
PLAYING = {
    "fromcurrent": True,
    "frame": {"duration": 350, "redraw": True},
    "transition": {"duration": 0},
}


def gptq_replay(replay: pd.DataFrame) -> go.Figure:
    """Rows of ReplayRow. It starts half-way; a slider and a button select the step."""
    if replay.empty:
        return message_figure("There are no columns to replay.")
    replay = replay.reset_index(drop=True)
    steps = dict(tuple(replay.groupby("step")))
    middle, largest = sorted(steps)[len(steps) // 2], weight_change(replay).abs().max()
    figure = base_figure(height=640).add_traces(
        [*weight_maps(steps[middle], largest), *error_curves(replay), *step_markers(steps[middle])]
    )
    figure.frames = [
        go.Frame(
            name=str(step),
            data=frame_traces(rows, largest),
            traces=[0, 1, 4, 5],
            layout=step_layout(rows),
        )
        for step, rows in steps.items()
    ]
    figure.update_layout(step_layout(steps[middle])).update_layout(axes_layout()).update_layout(
        playback_controls(list(steps), middle), legend={"y": ERROR_LANE[1]}
    )
    return figure


def weight_maps(rows: pd.DataFrame, color_limit: float) -> list[go.Heatmap]:
    """Maps of each weight's difference from its original, for GPTQ and for plain rounding."""
    style = {
        "colorscale": DIVERGING,
        "zmin": -color_limit,
        "zmax": color_limit,
        "showscale": False,
        "hoverinfo": "text+z",
        "xgap": 1,
        "ygap": 1,
    }
    return [
        go.Heatmap(
            z=change_grid(rows, version),
            x=sorted(rows.place.unique()),
            y=sorted(rows.row.unique()),
            hovertext=hover(rows),
            yaxis=axis,
            **style,
        )
        for version, axis in (("gptq", "y"), ("plain", "y2"))
    ]


def error_curves(replay: pd.DataFrame) -> list[go.Scatter]:
    """Output error after each step."""
    steps = replay.drop_duplicates("step")
    lines = {
        "gptq_error": ("GPTQ", COMPRESSED, "solid"),
        "plain_error": ("Plain rounding", REFERENCE, "dash"),
    }
    return [
        go.Scatter(
            x=steps.step,
            y=steps[version],
            xaxis="x3",
            yaxis="y3",
            mode="lines",
            name=name,
            line={"color": color, "width": 2.5, "dash": dash},
            hovertext=[
                f"{name}, {step} columns rounded: {percent(error)}"
                for step, error in zip(steps.step, steps[version], strict=True)
            ],
            hoverinfo="text",
        )
        for version, (name, color, dash) in lines.items()
    ]


def step_markers(rows: pd.DataFrame) -> list[go.Scatter]:
    first_row = rows.iloc[0]
    points = {
        "x": [first_row.step],
        "xaxis": "x3",
        "yaxis": "y3",
        "mode": "markers",
        "showlegend": False,
        "hoverinfo": "skip",
    }
    return [
        go.Scatter(y=[error], marker={"color": color, "size": 11}, **points)
        for error, color in ((first_row.gptq_error, COMPRESSED), (first_row.plain_error, REFERENCE))
    ]


def frame_traces(rows: pd.DataFrame, color_limit: float) -> list[Any]:
    """Parts of the figure that change with the step."""
    return [
        *(
            go.Heatmap(z=change_grid(rows, version), zmin=-color_limit, zmax=color_limit)
            for version in ("gptq", "plain")
        ),
        *step_markers(rows),
    ]


def change_grid(rows: pd.DataFrame, method: str) -> np.ndarray:
    return weight_change(rows, method).to_numpy(np.float32).reshape(rows.row.nunique(), -1)


def weight_change(rows: pd.DataFrame, method: str = "gptq") -> pd.Series:
    return rows[method] - rows.original


def hover(rows: pd.DataFrame) -> list[list[str]]:
    texts = [
        f"row {row.row}, column {row.column}<br>original {row.original:.4g}; changed by"
        for row in rows.itertuples(index=False)
    ]
    return np.array(texts).reshape(rows.row.nunique(), -1).tolist()


def step_layout(rows: pd.DataFrame) -> dict[str, Any]:
    """Description of the step above each map, and a frame around the current column."""
    titles = {
        GPTQ_LANE[1]: f"<b>GPTQ</b>: {step_description(rows)}",
        PLAIN_LANE[1]: "<b>Plain rounding</b>: no other column changes",
    }
    layout = {
        "x": 0,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
    }
    step = rows.step.iloc[0]
    box = {
        "type": "rect",
        "x0": step - 1.5,
        "x1": step - 0.5,
        "line": {"color": HIGHLIGHT, "width": 2},
        "visible": bool(step),
    }
    ends = [-0.5, rows.row.nunique() - 0.5]
    return {
        "annotations": [layout | {"y": y, "text": text} for y, text in titles.items()],
        "shapes": [box | {"y0": ends[0], "y1": ends[1], "yref": axis} for axis in ("y", "y2")],
    }


def step_description(rows: pd.DataFrame) -> str:
    """Description of the step."""
    step = rows.step.iloc[0]
    if not step:
        return "nothing is rounded yet"
    column = rows[rows.place == step - 1]
    size = ((column.gptq - column.original) ** 2).mean() ** 0.5
    return f"column {column.column.iloc[0]} rounded, off by {size:.2g}"


def axes_layout() -> dict[str, Any]:
    upper = AXIS | {"showgrid": False, "fixedrange": True}
    return {
        "xaxis": upper | {"anchor": "y2", "title": {"text": "Rounding order (column)"}},
        "yaxis": upper
        | {"domain": GPTQ_LANE, "autorange": "reversed", "title": {"text": "Row (output)"}},
        "yaxis2": upper
        | {"domain": PLAIN_LANE, "autorange": "reversed", "title": {"text": "Row (output)"}},
        "xaxis3": AXIS | {"anchor": "y3", "title": {"text": "Columns rounded (number)"}},
        "yaxis3": AXIS
        | {
            "domain": ERROR_LANE,
            "anchor": "x3",
            "rangemode": "tozero",
            "tickformat": PERCENT,
            "title": {"text": "Output error (%)"},
        },
    }


def playback_controls(steps: list[int], active: int) -> dict[str, Any]:
    slide = [
        {"label": str(step), "method": "animate", "args": [[str(step)], INSTANT]} for step in steps
    ]
    slider = {
        "active": steps.index(active),
        "steps": slide,
        "x": 0.34,
        "len": 0.66,
        "y": -0.13,
        "pad": {"t": 0, "b": 0},
        "ticklen": 0,
        "minorticklen": 0,
        "currentvalue": {"prefix": "Columns rounded: ", "xanchor": "left"},
        "bgcolor": translucent(REFERENCE, 0.3),
        "bordercolor": REFERENCE,
        "activebgcolor": HIGHLIGHT,
        "font": {"size": 12},
    }
    buttons = [
        {"label": label, "method": "animate", "args": args}
        for label, args in (("▶", [None, PLAYING]), ("❚❚", [[None], INSTANT]))
    ]
    menu = {
        "type": "buttons",
        "direction": "left",
        "buttons": buttons,
        "x": 0,
        "xanchor": "left",
        "y": -0.13,
        "yanchor": "top",
        "showactive": False,
        "pad": {"t": 18, "r": 0},
        "bgcolor": translucent(REFERENCE, 0.15),
        "bordercolor": REFERENCE,
    }
    return {"sliders": [slider], "updatemenus": [menu]}


def description(replay: pd.DataFrame) -> str:
    last = replay.iloc[replay.step.argmax()]
    return (
        f"After {last.step} columns, the output error is {percent(last.gptq_error)} with GPTQ and "
        f"{percent(last.plain_error)} with plain rounding ({replay.row.nunique()} rows shown)."
    )


GPTQ_REPLAY = Panel(
    question="How does GPTQ compensate for rounding errors?",
    caption=(
        "Tiles are weights, colored by their distance from the original: orange above, blue "
        "below. Columns left of the red frame are rounded. GPTQ compensates for each error by "
        "updating the columns to the right; plain rounding does not. Below: the output error so "
        "far. Press play or move the slider."
    ),
    draw=gptq_replay,
    describe=description,
)
