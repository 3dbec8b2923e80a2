"""Table rows about pruned layers: scores with their threshold, positions of the remaining weights,
and the size of each storage format.
"""

from collections.abc import Iterator

import pandas as pd
import torch

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.step.table_builder import TableBuilder
from engine.techniques.hooks import diagnostics
from engine.techniques.pruning.options import Pruning, parse_pattern
from engine.techniques.pruning.tables import ImportanceRow, StorageRow
from engine.techniques.pruning.unstructured.method import values_dtype
from engine.techniques.pruning.unstructured.scores import importance
from engine.tensors.sparse import storage_sizes_bytes
from engine.tensors.weights import StoredWeight

BINS = 60
DECADES = 6  # range of the shown scores below the largest; smaller ones count in the lowest bin
TILES = 32  # tiles along each side of a layer


@diagnostics.register
def diagnostics_pruning(
    config: Pruning,
    layer: str,
    weight: torch.Tensor,
    stored: StoredWeight,
    stats: InputStats | GradientStats | None,
) -> TableBuilder:
    """No scores of a gradual schedule: it chose by weights during training, not by those
    before it.
    """
    left = stored.to_dense() != 0
    rows = TableBuilder(
        storage=list(storage_rows(config, layer, stored, int(left.sum()))),
        masks=[mask_table(layer, left)],
    )
    if not config.trains:
        rows.importance.extend(
            importance_rows(layer, importance(config, weight, *([stats] if stats else [])), left)
        )
    return rows


def storage_rows(
    config: Pruning, layer: str, stored: StoredWeight, left: int
) -> Iterator[StorageRow]:
    sizes = storage_sizes_bytes(
        stored.shape,
        left,
        values_dtype(config).itemsize,
        parse_pattern(config.pattern) if config.pattern else None,
    )
    return (
        StorageRow(layer, storage_format, size, storage_format == stored.kind)
        for storage_format, size in sizes.items()
    )


def importance_rows(layer: str, score: torch.Tensor, left: torch.Tensor) -> Iterator[ImportanceRow]:
    """Histograms of the scores of kept and removed weights, with logarithmic bins."""
    high = score.max().clamp_min(1e-30).log10().item()
    bins = (
        ((score.clamp_min(1e-38).log10() - high) * (BINS / DECADES) + BINS)
        .floor()
        .clamp(0, BINS - 1)
        .long()
    )
    stays, goes = (bins[chosen].bincount(minlength=BINS).tolist() for chosen in (left, ~left))
    edges = torch.logspace(high - DECADES, high, BINS + 1).tolist()
    return (
        ImportanceRow(layer, *row) for row in zip(edges[:-1], edges[1:], stays, goes, strict=True)
    )


def mask_table(layer: str, left: torch.Tensor) -> pd.DataFrame:
    """MaskRow of every tile, at most TILES along each side, as a frame."""
    high, wide = (-(-size // TILES) for size in left.shape)
    rows, columns = (
        torch.arange(size, device=left.device) // step
        for size, step in zip(left.shape, (high, wide), strict=True)
    )
    down, across = int(rows[-1]) + 1, int(columns[-1]) + 1
    by_rows = torch.zeros(down, left.shape[1], device=left.device).index_add_(0, rows, left.float())
    counts = torch.zeros(down, across, device=left.device).index_add_(1, columns, by_rows)
    share = counts / (rows.bincount()[:, None] * columns.bincount())
    grid = torch.meshgrid(torch.arange(down) * high, torch.arange(across) * wide, indexing="ij")
    numbers = {"row": grid[0], "column": grid[1], "left": share.cpu()}
    return pd.DataFrame(
        {"layer": layer, **{name: values.flatten().numpy() for name, values in numbers.items()}}
    )
