"""Ranges of inputs and weights before and after smoothing."""

from engine.results.schema.explanations import Explanation
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.explanations import empty_levels, frame, part_of
from engine.techniques.hooks import explanation
from engine.techniques.quantization.activations.config import Activations
from engine.techniques.quantization.activations.tables import ReachRow

COLUMNS = 96  # input columns in the explanation


@explanation.register
def explanation_activations(config: Activations, compressed: CompressedLayer) -> Explanation:
    """Show the ranges of inputs and weights before and after; also for SmoothQuant."""
    vectors = compressed.stats.sample_vectors()
    before, after = (
        vectors.abs().amax(0),
        compressed.stored.quantized_inputs(vectors / compressed.scales).abs().amax(0),
    )
    strongest = before.topk(min(COLUMNS, len(before))).indices
    reach, stored = compressed.weight.abs().amax(0), compressed.stored.to_dense().abs().amax(0)
    columns = {
        "input_before": before,
        "input_after": after,
        "weight_before": reach,
        "weight_after": stored,
    }
    rows = frame(
        ReachRow, column=strongest, **{name: values[strongest] for name, values in columns.items()}
    )
    return Explanation(
        ReachRow,
        rows,
        empty_levels(),
        part_of("input columns", len(rows), len(before)) + ", the strongest inputs first",
    )
