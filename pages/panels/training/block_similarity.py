"""Similarity of the states after a student's and its teacher's blocks."""

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import plotly_text
from pages.panels.panel import Panel
from pages.panels.theme import HIGHLIGHT, ORIGINAL, PALE, TEXT_ON_COLOR, base_figure, message_figure

MAX_COLUMNS_WITH_NUMBERS = 10  # columns up to which there is room for numbers


def block_similarity(rows: pd.DataFrame) -> go.Figure:
    """Rows of SimilarityRow, in the order of the blocks."""
    if rows.empty:
        return message_figure("No student was compared with its teacher in this run.")
    grid = rows.pivot(index="student", columns="teacher", values="similarity").loc[
        rows.student.unique(), rows.teacher.unique()
    ]
    figure = base_figure(height=160 + 36 * len(grid)).add_traces(
        [tiles(grid), nearest_markers(grid)]
    )
    figure.update_yaxes(
        type="category",
        autorange="reversed",
        showgrid=False,
        title_text="After the student's block",
    )
    return figure.update_xaxes(
        type="category", showgrid=False, tickangle=0, title_text="After the teacher's block"
    )


def tiles(grid: pd.DataFrame) -> go.Heatmap:
    hover = [
        [
            f"student: {plotly_text(student_block)}<br>teacher: {plotly_text(teacher_block)}"
            f"<br>similarity {value:.2f}"
            for teacher_block, value in cells.items()
        ]
        for student_block, cells in grid.iterrows()
    ]
    bar = {
        "orientation": "h",
        "thickness": 10,
        "y": 1,
        "yanchor": "bottom",
        "nticks": 5,
        "outlinewidth": 0,
    }
    style = {
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, PALE], [1, ORIGINAL]],
        "colorbar": bar,
        "textfont": {"color": TEXT_ON_COLOR},
    }
    written = (
        {
            "text": [[f"{value:.2f}" for value in cells] for cells in grid.to_numpy()],
            "texttemplate": "%{text}",
        }
        if numbers_fit(grid)
        else {}
    )
    return go.Heatmap(
        x=block_numbers(grid.columns),
        y=block_numbers(grid.index),
        z=grid.to_numpy(),
        hovertext=hover,
        hoverinfo="text",
        **style,
        **written,
    )


def hover_text(student: str, teacher: str, value: float) -> str:
    return (
        f"student: {plotly_text(student)}<br>teacher: {plotly_text(teacher)}<br>similarity "
        f"{value:.2f}"
    )


def numbers_fit(grid: pd.DataFrame) -> bool:
    return len(grid.columns) <= MAX_COLUMNS_WITH_NUMBERS


def nearest_markers(grid: pd.DataFrame) -> go.Scatter:
    """Frame around the teacher block most similar to each student block."""
    best = block_numbers(grid.columns)
    x = [best[index] for index in grid.to_numpy().argmax(1)]
    marker = {
        "symbol": "square-open",
        "size": 30 if numbers_fit(grid) else 12,
        "color": HIGHLIGHT,
        "line": {"width": 2},
    }
    return go.Scatter(
        x=x,
        y=block_numbers(grid.index),
        mode="markers",
        marker=marker,
        showlegend=False,
        hoverinfo="skip",
    )


def block_numbers(blocks: pd.Index) -> list[str]:
    """Position of each block in the model, counted from 1."""
    before = ["input"] if blocks[0] == "embeddings" else []
    return [*before, *(str(index + 1) for index in range(len(blocks) - len(before)))]


def description(rows: pd.DataFrame) -> str:
    plain = rows.reset_index(drop=True)
    best = plain.loc[plain.groupby("student", sort=False).similarity.idxmax()]
    low = best.loc[best.similarity.idxmin()]
    return (
        f"{len(best)} student blocks; the least similar to the teacher is {low.student}, "
        f"{low.similarity:.2f} at its most similar block, {low.teacher}."
    )


BLOCK_SIMILARITY = Panel(
    question="Which teacher block does each student block resemble?",
    caption=(
        "Similarity of hidden states on the same calibration inputs (linear CKA): 1 if they differ "
        "only by rotation and scale, about 0 if they have nothing in common. Frames mark the "
        "teacher block most similar to each student block; input is the input of the first block."
    ),
    draw=block_similarity,
    describe=description,
)
