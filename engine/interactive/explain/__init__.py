"""Lessons on real weights: a technique at work on a small part of one layer, a piece of it, and
single weights under the microscope.

Answered by the worker for quick questions, from what ``answers.look_at_hand`` keeps.
"""

import torch

from engine.errors import PlainError
from engine.interactive.answers import Look, look_at_hand

# importing these registers their figures
from engine.interactive.explain import gptq, low_rank, pruning, structured  # noqa: F401
from engine.interactive.explain.default import factors_of, frame, group_table, picture
from engine.interactive.inspect_weight import found
from engine.results.schema.explanations import SIDE, Lesson, MapRow, WeightMap, WeightView
from engine.results.schema.tables import LevelRow, table
from engine.runtime.worker_setup import ready

__all__ = ["lesson", "piece", "weight"]


def lesson(model: str, layer: str, step: dict, measured: dict | None = None) -> Lesson:
    """Explanation of the step's technique on this layer."""
    ready()
    look = look_at_hand(model, layer, step, measured)
    return picture(look.asked, look)


def piece(
    model: str, layer: str, step: dict, measured: dict | None = None, row: int = 0, column: int = 0
) -> WeightMap:
    """SIDE x SIDE weights from a row and column on, before and after."""
    ready()
    look = look_at_hand(model, layer, step, measured)
    out, in_ = inside(look, row, column)
    rows, columns = (
        torch.arange(row, min(out, row + SIDE)),
        torch.arange(column, min(in_, column + SIDE)),
    )
    at = torch.meshgrid(rows, columns, indexing="ij")
    dense = look.stored.dense() / look.scales
    return WeightMap(
        frame(MapRow, row=at[0], column=at[1], original=look.weight[at], stored=dense[at]),
        (out, in_),
    )


def weight(
    model: str, layer: str, step: dict, measured: dict | None = None, row: int = 0, column: int = 0
) -> WeightView:
    """Everything there is to know of one weight."""
    ready()
    look = look_at_hand(model, layer, step, measured)
    inside(look, row, column)
    seen, factors, dense = (
        found(look.stored, row, column),
        factors_of(look),
        look.stored.dense() / look.scales,
    )
    levels = (
        () if seen.levels is None else (LevelRow(layer, value) for value in seen.levels.tolist())
    )
    return WeightView(
        row,
        column,
        look.weight[row, column].item(),
        dense[row, column].item(),
        factors[column].item(),
        seen.code,
        group_table(look, seen, dense, (row, column)),
        table(levels, LevelRow),
    )


def inside(look: Look, row: int, column: int) -> tuple[int, int]:
    """The layer's rows and columns. Raises PlainError for a place outside."""
    out, in_ = look.weight.shape
    if not (0 <= row < out and 0 <= column < in_):
        raise PlainError(
            f"Row {row}, column {column} is outside the layer: rows go from 0 to {out - 1}, "
            f"columns from 0 to {in_ - 1}."
        )
    return out, in_
