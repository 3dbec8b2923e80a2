"""Importance of each structure of one block, and which ones are removed."""

from engine.results.schema.explanations import Explanation
from engine.results.schema.tables import StructureRow, table
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.explanations import empty_levels, examples_note
from engine.techniques.hooks import explanation
from engine.techniques.pruning.structured.config import Structured


@explanation.register
def explanation_structured(config: Structured, compressed: CompressedLayer) -> Explanation:
    """Show the structures of the layer, otherwise those of its block."""
    home = compressed.pruning_plan.block_of_layer.get(compressed.part.name, compressed.part.block)
    every = compressed.pruning_plan.structures
    rows = [row for row in every if row.block == home] or [
        row for row in every if row.block == every[0].block
    ]
    part = f"all {len(rows)} {rows[0].what}s of {rows[0].block}" + (
        f", {examples_note()}" if config.needs != "nothing" else ""
    )
    return Explanation(StructureRow, table(rows, StructureRow), empty_levels(), part)
