"""Lessons on real weights: a technique at work on a small part of one layer, a piece of it, and
single weights under the microscope.

Answered from the layer previews that ``layer_preview.cached_preview`` keeps.
"""

import torch

from engine.errors import PlainError

# importing these registers their figures
from engine.interactive.explain import gptq, low_rank, pruning, structured  # noqa: F401
from engine.interactive.explain.default import factors_of, frame, group_table, picture
from engine.interactive.inspect_weight import found
from engine.interactive.layer_preview import Look, cached_preview
from engine.interactive.registry import answer
from engine.queries import ExplanationQuery, WeightMapQuery, WeightQuery
from engine.results.schema.explanations import SIDE, Lesson, MapRow, WeightMap, WeightView
from engine.results.schema.tables import LevelRow, table


@answer.register
def answer_explanation(query: ExplanationQuery) -> Lesson:
    look = cached_preview(query.recipe, query.layer)
    return picture(look.asked, look)


@answer.register
def answer_weight_map(query: WeightMapQuery) -> WeightMap:
    """SIDE x SIDE weights."""
    look, row, column = cached_preview(query.recipe, query.layer), query.row, query.column
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


@answer.register
def answer_weight(query: WeightQuery) -> WeightView:
    look, row, column = cached_preview(query.recipe, query.layer), query.row, query.column
    inside(look, row, column)
    seen, factors, dense = (
        found(look.stored, row, column),
        factors_of(look),
        look.stored.dense() / look.scales,
    )
    levels = (
        ()
        if seen.levels is None
        else (LevelRow(query.layer, value) for value in seen.levels.tolist())
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
