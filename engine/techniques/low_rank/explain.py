"""A matrix reconstructed from its factors, as an image."""

import pandas as pd
import torch

from engine.results.schema.explanations import Explanation
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.explanations import empty_levels
from engine.techniques.hooks import diagnostics, explanation
from engine.techniques.low_rank.options import LowRankTechnique
from engine.techniques.low_rank.tables import TileRow

TILES = 48  # tiles along each side


@explanation.register
def explanation_low_rank(config: LowRankTechnique, compressed: CompressedLayer) -> Explanation:
    rebuilt = compressed.stored.to_dense()
    versions = {
        "original": compressed.weight,
        "rebuilt": rebuilt,
        "missing": rebuilt - compressed.weight,
    }
    rows = pd.concat(
        [tile_table(version, matrix) for version, matrix in versions.items()], ignore_index=True
    )
    (ranks,) = diagnostics(
        compressed.config,
        compressed.part.name,
        compressed.weight,
        compressed.stored,
        compressed.stats,
    ).ranks
    high, wide = steps(compressed.weight)
    part = (
        f"all {len(compressed.weight):,} x {compressed.weight.shape[1]:,} "
        f"of them in tiles of {high} x {wide}; "
        + ("unchanged" if ranks.whole else f"rank {ranks.rank} of {ranks.full_rank}")
    )
    return Explanation(TileRow, rows, empty_levels(), part)


def steps(matrix: torch.Tensor) -> tuple[int, int]:
    """Height and width of a tile, in weights."""
    high, wide = (-(-size // TILES) for size in matrix.shape)
    return high, wide


def tile_table(version: str, matrix: torch.Tensor) -> pd.DataFrame:
    """TileRow of every tile, at most TILES along each side, as a frame."""
    high, wide = steps(matrix)
    rows, columns = (
        torch.arange(size) // step for size, step in zip(matrix.shape, (high, wide), strict=True)
    )
    down, across = int(rows[-1]) + 1, int(columns[-1]) + 1
    by_rows = torch.zeros(down, matrix.shape[1]).index_add_(0, rows, matrix)
    sums = torch.zeros(down, across).index_add_(1, columns, by_rows)
    means = sums / (rows.bincount()[:, None] * columns.bincount())
    grid = torch.meshgrid(torch.arange(down) * high, torch.arange(across) * wide, indexing="ij")
    numbers = {"row": grid[0], "column": grid[1], "value": means}
    return pd.DataFrame(
        {"version": version, **{name: values.flatten().numpy() for name, values in numbers.items()}}
    )
