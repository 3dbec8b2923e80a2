"""One layer at every number of bits."""

from engine.measurement.error import relative_norm
from engine.results.schema.explanations import Explanation
from engine.results.schema.tables import table
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.explanations import empty_levels, part_of
from engine.techniques.hooks import compress, explanation
from engine.techniques.quantization.mixed_precision.config import MixedPrecision
from engine.techniques.quantization.mixed_precision.tables import BitsRow

WEIGHTS = 1 << 18  # rows rounded at each number of bits
EVERY_BITS = range(2, 9)


@explanation.register
def explanation_mixed_precision(config: MixedPrecision, compressed: CompressedLayer) -> Explanation:
    """One layer at every number of bits."""
    weight = compressed.weight[: max(1, WEIGHTS // compressed.weight.shape[1])]
    allowed = set(config.choices) if config.by == "budget" else {compressed.config.bits}
    tried = {bits: compress(config.rounding(bits), weight) for bits in EVERY_BITS}
    rows = [
        BitsRow(
            b,
            relative_norm(s.to_dense() - weight, weight),
            8 * s.nbytes / weight.numel(),
            b in allowed,
        )
        for b, s in tried.items()
    ]
    return Explanation(
        BitsRow,
        table(rows, BitsRow),
        empty_levels(),
        part_of("output rows", len(weight), len(compressed.weight)),
    )
