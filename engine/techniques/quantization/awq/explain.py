"""One column of a layer with and without its scale."""

import torch

from engine.results.schema.explanations import Explanation
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.explanations import empty_levels, frame, part_of
from engine.techniques.hooks import compress, explanation
from engine.techniques.quantization.awq.config import AWQ
from engine.techniques.quantization.awq.tables import ScaledRow

ROWS = 48  # output rows in the explanation


@explanation.register
def explanation_awq(config: AWQ, compressed: CompressedLayer) -> Explanation:
    """Show the column of the strongest input."""
    column = int(compressed.stats.abs_mean.argmax())
    factor, weight = compressed.scales[column], compressed.weight[:ROWS]
    unscaled = compress(config.rounding(), weight).to_dense()[:, column]
    within = compressed.stored.to_dense()[:ROWS, column] / factor
    original = weight[:, column]
    rows = frame(
        ScaledRow,
        row=torch.arange(len(weight)),
        column=column,
        factor=factor.item(),
        original=original,
        scaled=original * factor,
        error_without=unscaled - original,
        error_with=within - original,
    )
    return Explanation(
        ScaledRow,
        rows,
        empty_levels(),
        part_of("output rows", len(rows), len(compressed.weight)) + f" of column {column}",
    )
