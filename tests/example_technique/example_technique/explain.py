"""Explanation of the example technique: the largest weight of each row sets its scale."""

import torch

from engine.results.schema.explanations import Explanation
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.explanations import empty_levels, frame, part_of
from engine.techniques.hooks import explanation
from example_technique.config import Example
from example_technique.tables import ExampleLargestRow

ROWS = 64  # output rows in the explanation


@explanation.register
def explanation_example(config: Example, compressed: CompressedLayer) -> Explanation:
    """Show the first rows of the layer."""
    weight = compressed.weight[:ROWS]
    rows = frame(
        ExampleLargestRow,
        row=torch.arange(len(weight)),
        largest=weight.abs().amax(1),
        scale=compressed.stored.scales[: len(weight)].float(),
    )
    part = part_of("output rows", len(weight), len(compressed.weight))
    return Explanation(ExampleLargestRow, rows, empty_levels(), part)
