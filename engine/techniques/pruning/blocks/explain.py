"""Influence of each block, and which ones are removed."""

from engine.results.schema.explanations import Lesson
from engine.results.schema.tables import StructureRow, table
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.explanations import by_examples, no_levels
from engine.techniques.hooks import explanation
from engine.techniques.pruning.blocks.config import Blocks


@explanation.register
def explanation_blocks(config: Blocks, look: CompressedLayer) -> Lesson:
    rows = look.rebuilt.structures
    return Lesson(
        StructureRow,
        table(rows, StructureRow),
        no_levels(),
        f"all {len(rows)} blocks, {by_examples()}",
    )
