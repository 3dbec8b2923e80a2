"""Size of a layer's inputs by token and channel, before and after scaling."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages.panels.panel import Panel
from pages.panels.theme import AXIS, GRID, base_figure, message_figure

VERSIONS = {"original": "Before scaling", "scaled": "After scaling"}
COLOR_SCALE = "Cividis"  # made for color-blind eyes
CAMERA = {"eye": {"x": -1.75, "y": -2.05, "z": 1.2}}


def activation_surface(surface: pd.DataFrame, *, as_surface: bool = False) -> go.Figure:
    """Rows of SurfaceRow for one layer: a heat map or a 3D surface (``as_surface``) for each
    version, with common height and colors.
    """
    if surface.empty:
        return message_figure("The inputs of this layer were not recorded.")
    versions = [version for version in VERSIONS if (surface.version == version).any()]
    top = surface.largest.max()
    figure = base_figure(height=(420 if as_surface else 300) * len(versions) + 60)
    figure.add_traces(
        [
            (surface_trace if as_surface else heatmap_trace)(
                surface[surface.version == version], number, top
            )
            for number, version in enumerate(versions)
        ]
    )
    figure.update_layout(
        coloraxis={"colorscale": COLOR_SCALE, "cmin": 0, "cmax": top, "colorbar": color_bar()}
    )
    for number, version in enumerate(versions):
        add_version_axes(
            figure,
            number,
            len(versions),
            VERSIONS[version] if len(versions) > 1 else "",
            top,
            as_surface,
        )
    return figure


def heatmap_trace(surface: pd.DataFrame, number: int, top: float) -> go.Heatmap:
    grid = magnitude_grid(surface)
    axes = {"xaxis": f"x{number + 1}", "yaxis": f"y{number + 1}"} if number else {}
    return go.Heatmap(
        z=grid,
        x=grid.columns,
        y=grid.index,
        coloraxis="coloraxis",
        hovertext=hover(grid),
        hoverinfo="text",
        **axes,
    )


def surface_trace(surface: pd.DataFrame, number: int, top: float) -> go.Surface:
    grid, scene = magnitude_grid(surface), f"scene{number + 1 if number else ''}"
    return go.Surface(
        z=grid,
        x=grid.columns,
        y=grid.index,
        coloraxis="coloraxis",
        hovertext=hover(grid),
        hoverinfo="text",
        scene=scene,
    )


def magnitude_grid(surface: pd.DataFrame) -> pd.DataFrame:
    """Blocks of tokens down, blocks of channels across."""
    return surface.pivot(index="vector", columns="channel", values="largest")


def hover(magnitudes: pd.DataFrame) -> np.ndarray:
    """Hover text of each tile: its position and largest value."""
    return np.array(
        [
            [
                f"input {row}, channel {column}<br>|x| up to {value:.3g}"
                for column, value in magnitudes.loc[row].items()
            ]
            for row in magnitudes.index
        ]
    )


def color_bar() -> dict[str, Any]:
    """Color scale below the figure, where a phone has room for it."""
    title = {"text": "Largest |x| (value)", "side": "top"}
    return {
        "orientation": "h",
        "thickness": 10,
        "len": 0.9,
        "y": -0.02,
        "yanchor": "top",
        "title": title,
    }


def add_version_axes(
    figure: go.Figure, number: int, n_versions: int, title: str, top: float, as_surface: bool
) -> None:
    """Add the title and axes of one version at its position from the top."""
    high, number_ = 1 - number / n_versions, f"{number + 1 if number else ''}"
    low = high - 0.84 / n_versions
    if as_surface:
        axes = {
            "xaxis": scene_axis("Channel"),
            "yaxis": scene_axis("Input"),
            "zaxis": scene_axis("|x|") | {"range": [0, top], "nticks": 4},
        }
        figure.update_layout(
            {
                f"scene{number_}": {
                    "domain": {"x": [0, 1], "y": [low, high - 0.04]},
                    "camera": CAMERA,
                    "aspectratio": {"x": 1.5, "y": 1.1, "z": 0.6},
                    **axes,
                }
            }
        )
        figure.update_layout(xaxis={"visible": False}, yaxis={"visible": False})
    else:
        figure.update_layout(
            {
                f"xaxis{number_}": AXIS
                | {
                    "anchor": f"y{number_}",
                    "title": {"text": "Input channel (number)", "standoff": 4},
                    "showgrid": False,
                },
                f"yaxis{number_}": AXIS
                | {
                    "domain": [low, high - 0.06],
                    "anchor": f"x{number_}",
                    "title": {"text": "Sampled input (number)"},
                },
            }
        )
    figure.add_annotation(
        text=title,
        x=0,
        y=high,
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="top",
        showarrow=False,
    )


def scene_axis(title: str) -> dict[str, Any]:
    return {
        "title": {"text": title},
        "backgroundcolor": "rgba(0,0,0,0)",
        "gridcolor": GRID,
        "showbackground": False,
    }


def description(surface: pd.DataFrame) -> str:
    largest = surface.groupby("version", sort=False).largest.max()
    blocks = (
        f"{surface.vector.nunique()} blocks of tokens by {surface.channel.nunique()} of channels"
    )
    after = f", {largest['scaled']:.3g} after scaling" if "scaled" in largest else ""
    return f"{blocks}; the largest input is {largest['original']:.3g}{after}."


ACTIVATION_SURFACE = Panel(
    question="Are there outlier channels?",
    caption=(
        "Each cell is the largest |x| in a block of adjacent inputs (tokens or image positions) "
        "and channels, on a sample of calibration data. Bright stripes are outlier channels, which "
        "widen the range for all others. After scaling (SmoothQuant, AWQ) they should disappear."
    ),
    draw=activation_surface,
    describe=description,
)
