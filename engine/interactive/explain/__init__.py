"""Explanations on real weights: a technique applied to a small part of one layer, a part of the
layer before and after, and single weights. They use the layer previews that
``layer_preview.cached_preview`` keeps.
"""

import torch

from engine.errors import PlainError

# importing these registers their answers
from engine.interactive.explain import mask_overlap, singular_values  # noqa: F401
from engine.interactive.explain.default import (
    default_explanation,
    group_table,
    stored_column_factors,
)
from engine.interactive.inspect_weight import weight_location
from engine.interactive.layer_preview import cached_preview
from engine.interactive.registry import answer
from engine.queries import ExplanationQuery, WeightMapQuery, WeightQuery
from engine.results.schema.explanations import SIDE, Explanation, MapRow, WeightMap, WeightView
from engine.results.schema.tables import LevelRow, table
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.explanations import frame
from engine.techniques.implementations import explanation


@answer.register
def answer_explanation(query: ExplanationQuery) -> Explanation:
    compressed = cached_preview(query.recipe, query.layer)
    shown = explanation(compressed.step, compressed)
    return default_explanation(compressed) if shown is None else shown


@answer.register
def answer_weight_map(query: WeightMapQuery) -> WeightMap:
    """SIDE x SIDE weights."""
    compressed, row, column = cached_preview(query.recipe, query.layer), query.row, query.column
    out, in_ = inside(compressed, row, column)
    rows, columns = (
        torch.arange(row, min(out, row + SIDE)),
        torch.arange(column, min(in_, column + SIDE)),
    )
    grid = torch.meshgrid(rows, columns, indexing="ij")
    dense = compressed.stored.to_dense() / compressed.scales
    return WeightMap(
        frame(
            MapRow,
            row=grid[0],
            column=grid[1],
            original=compressed.weight[grid],
            stored=dense[grid],
        ),
        (out, in_),
    )


@answer.register
def answer_weight(query: WeightQuery) -> WeightView:
    compressed, row, column = cached_preview(query.recipe, query.layer), query.row, query.column
    inside(compressed, row, column)
    location, factors, dense = (
        weight_location(compressed.stored, row, column),
        stored_column_factors(compressed),
        compressed.stored.to_dense() / compressed.scales,
    )
    levels = (
        ()
        if location.levels is None
        else (LevelRow(query.layer, value) for value in location.levels.tolist())
    )
    return WeightView(
        row,
        column,
        compressed.weight[row, column].item(),
        dense[row, column].item(),
        factors[column].item(),
        location.code,
        group_table(compressed, location, dense, (row, column)),
        table(levels, LevelRow),
    )


def inside(compressed: CompressedLayer, row: int, column: int) -> tuple[int, int]:
    """Index within the layer's rows and columns. Raises PlainError for one outside."""
    out, in_ = compressed.weight.shape
    if not (0 <= row < out and 0 <= column < in_):
        raise PlainError(
            f"Row {row}, column {column} is outside the layer: rows go from 0 to {out - 1}, "
            f"columns from 0 to {in_ - 1}."
        )
    return out, in_
