"""Default explanation of a technique: a few weights that share a scale, before and after. Its size
is bounded for any layer; ``Explanation.part`` says what is left out.
"""

import pandas as pd
import torch

from engine.interactive.inspect_weight import WeightLocation, column_factors, weight_location
from engine.results.schema.explanations import Explanation, GroupRow
from engine.results.schema.tables import LevelRow, table
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.explanations import frame


def default_explanation(compressed: CompressedLayer) -> Explanation:
    """A group of weights on their grid, from the middle of the layer."""
    row, column = (size // 2 for size in compressed.weight.shape)
    location, dense = (
        weight_location(compressed.stored, row, column),
        compressed.stored.to_dense() / compressed.scales,
    )
    group = group_table(compressed, location, dense, None)
    levels = group.stored.unique() if location.levels is None else location.levels.tolist()
    first, last = int(location.columns[0]), int(location.columns[-1])
    part = (
        f"{len(group)} weights, from row {int(location.rows[0])}, column {first} to "
        f"row {int(location.rows[-1])}, column {last}"
    )
    return Explanation(
        GroupRow,
        group,
        table((LevelRow(compressed.part.name, value) for value in levels), LevelRow),
        part,
    )


def group_table(
    compressed: CompressedLayer,
    location: WeightLocation,
    dense: torch.Tensor,
    chosen: tuple[int, int] | None,
) -> pd.DataFrame:
    """GroupRow of a weight's neighbors, in the order of storage."""
    positions, factors = (
        (location.rows, location.columns),
        stored_column_factors(compressed)[location.columns],
    )
    is_chosen = (location.rows == chosen[0]) & (location.columns == chosen[1]) if chosen else False
    return frame(
        GroupRow,
        row=location.rows,
        column=location.columns,
        original=compressed.weight[positions] * factors,
        stored=dense[positions] * factors,
        chosen=is_chosen,
    )


def stored_column_factors(compressed: CompressedLayer) -> torch.Tensor:
    """Factor by which each column is multiplied before it is stored. (in_,)"""
    return column_factors(compressed.stored) * compressed.scales
