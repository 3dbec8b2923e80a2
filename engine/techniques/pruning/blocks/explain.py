"""Influence of each block, and which ones are removed."""

from engine.results.schema.explanations import Explanation
from engine.results.schema.tables import StructureRow, table
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.explanations import empty_levels, examples_note
from engine.techniques.hooks import explanation
from engine.techniques.pruning.blocks.config import Blocks


@explanation.register
def explanation_blocks(config: Blocks, compressed: CompressedLayer) -> Explanation:
    rows = compressed.pruning_plan.structures
    return Explanation(
        StructureRow,
        table(rows, StructureRow),
        empty_levels(),
        f"all {len(rows)} blocks, {examples_note()}",
    )
