"""Low rank at work on one layer: the matrix rebuilt from its factors, as a picture, and its
singular values.
"""

import pandas as pd
import torch

from engine.interactive.explain.default import no_levels, picture
from engine.interactive.layer_preview import Look, cached_preview
from engine.interactive.registry import answer
from engine.queries import SingularValuesQuery
from engine.results.schema.explanations import Lesson, TileRow
from engine.results.schema.tables import SingularRow, table
from engine.techniques.implementations import portrait
from engine.techniques.low_rank.options import LowRank

TILES = 48  # along each side


@picture.register
def picture_low_rank(asked: LowRank, look: Look) -> Lesson:
    rebuilt = look.stored.dense()
    versions = {"original": look.weight, "rebuilt": rebuilt, "missing": rebuilt - look.weight}
    rows = pd.concat(
        [tiled(version, matrix) for version, matrix in versions.items()], ignore_index=True
    )
    (ranks,) = portrait(look.how, look.part.name, look.weight, look.stored, look.seen).ranks
    high, wide = steps(look.weight)
    part = (
        f"all {len(look.weight):,} x {look.weight.shape[1]:,} of them in tiles of {high} x {wide}; "
        + ("kept as it was" if ranks.whole else f"rank {ranks.rank} of {ranks.full_rank}")
    )
    return Lesson(TileRow, rows, no_levels(), part)


def steps(matrix: torch.Tensor) -> tuple[int, int]:
    """Height and width of a tile, in weights."""
    high, wide = (-(-size // TILES) for size in matrix.shape)
    return high, wide


def tiled(version: str, matrix: torch.Tensor) -> pd.DataFrame:
    """TileRow of every tile, at most TILES along each side; as columns."""
    high, wide = steps(matrix)
    rows, columns = (
        torch.arange(size) // step for size, step in zip(matrix.shape, (high, wide), strict=True)
    )
    down, across = int(rows[-1]) + 1, int(columns[-1]) + 1
    by_rows = torch.zeros(down, matrix.shape[1]).index_add_(0, rows, matrix)
    sums = torch.zeros(down, across).index_add_(1, columns, by_rows)
    means = sums / (rows.bincount()[:, None] * columns.bincount())
    at = torch.meshgrid(torch.arange(down) * high, torch.arange(across) * wide, indexing="ij")
    numbers = {"row": at[0], "column": at[1], "value": means}
    return pd.DataFrame(
        {"version": version, **{name: values.flatten().numpy() for name, values in numbers.items()}}
    )


@answer.register
def answer_singular_values(query: SingularValuesQuery) -> pd.DataFrame:
    look = cached_preview(query.recipe, query.layer)
    found = portrait(look.how, query.layer, look.weight, look.stored, look.seen).singular
    return pd.concat(found, ignore_index=True) if found else table((), SingularRow)
