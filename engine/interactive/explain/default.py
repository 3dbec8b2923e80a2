"""Explanation of techniques without their own: a few weights that share a scale, before and after.

Bounded for layers of any size; ``Lesson.part`` says what is left out.
"""

import pandas as pd
import torch

from engine.interactive.inspect_weight import WeightLocation, column_factors, weight_location
from engine.results.schema.explanations import Explanation, GroupRow
from engine.results.schema.tables import LevelRow, table
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.explanations import frame


def default_explanation(look: CompressedLayer) -> Explanation:
    """A few weights on their grid: those around the middle of the layer."""
    row, column = (size // 2 for size in look.weight.shape)
    seen, dense = weight_location(look.stored, row, column), look.stored.to_dense() / look.scales
    group = group_table(look, seen, dense, None)
    levels = group.stored.unique() if seen.levels is None else seen.levels.tolist()
    last = int(seen.columns[-1])
    part = (
        f"{len(group)} weights, from row {int(seen.rows[0])}, column {int(seen.columns[0])} to "
        f"row {int(seen.rows[-1])}, column {last}"
    )
    return Explanation(
        GroupRow,
        group,
        table((LevelRow(look.part.name, value) for value in levels), LevelRow),
        part,
    )


def group_table(
    look: CompressedLayer, seen: WeightLocation, dense: torch.Tensor, chosen: tuple[int, int] | None
) -> pd.DataFrame:
    """GroupRow of a weight's neighbors, as they are stored."""
    at, factors = (seen.rows, seen.columns), stored_column_factors(look)[seen.columns]
    asked = (seen.rows == chosen[0]) & (seen.columns == chosen[1]) if chosen else False
    return frame(
        GroupRow,
        row=seen.rows,
        column=seen.columns,
        original=look.weight[at] * factors,
        stored=dense[at] * factors,
        chosen=asked,
    )


def stored_column_factors(look: CompressedLayer) -> torch.Tensor:
    """Factor of each column in storage.  (in_,)"""
    return column_factors(look.stored) * look.scales
