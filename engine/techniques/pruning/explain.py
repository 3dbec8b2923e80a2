"""Weights of a small part of a layer, by value and by importance."""

import torch

from engine.results.schema.explanations import Explanation
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.explanations import empty_levels, frame
from engine.techniques.hooks import explanation
from engine.techniques.pruning.options import Pruning
from engine.techniques.pruning.tables import RemovedRow
from engine.techniques.pruning.unstructured.scores import importance

BEFORE = ", by their magnitude before training; only a run shows the trained weights"
ROWS, COLUMNS = 12, 48  # of the layer, from its middle on


@explanation.register
def explanation_pruning(config: Pruning, compressed: CompressedLayer) -> Explanation:
    return removed_weights(compressed)


def removed_weights(compressed: CompressedLayer) -> Explanation:
    """Neighboring weights by value and by importance; of techniques that train, as they are
    before.
    """
    score = importance(
        compressed.config, compressed.weight, *([compressed.stats] if compressed.stats else [])
    )
    rows, columns = (
        torch.arange(size)[size // 2 :][:limit]
        for size, limit in zip(compressed.weight.shape, (ROWS, COLUMNS), strict=True)
    )
    grid, dense = torch.meshgrid(rows, columns, indexing="ij"), compressed.stored.to_dense()
    shown = score[grid] / score[grid].max().clamp_min(1e-38)
    removed = frame(
        RemovedRow,
        row=grid[0],
        column=grid[1],
        weight=compressed.weight[grid],
        score=shown,
        stored=dense[grid],
        stays=dense[grid] != 0,
    )
    part = (
        f"{len(removed)} weights, rows {int(rows[0])} to {int(rows[-1])}, columns "
        f"{int(columns[0])} to {int(columns[-1])}"
    )
    return Explanation(
        RemovedRow, removed, empty_levels(), part + (BEFORE if compressed.step.trains else "")
    )
