"""Structured pruning at work: how much each structure of one block matters, and which go."""

from engine.interactive.explain.default import no_levels, picture
from engine.interactive.layer_preview import Look
from engine.interactive.model_cache import LIVE_SAMPLES
from engine.results.schema.explanations import Lesson
from engine.results.schema.tables import StructureRow, table
from engine.techniques.pruning.blocks.config import Blocks
from engine.techniques.pruning.structured.config import Structured


@picture.register
def picture_structured(asked: Structured, look: Look) -> Lesson:
    """Show the structures that run through the layer, or else those of its block."""
    home = look.rebuilt.homes.get(look.part.name, look.part.block)
    every = look.rebuilt.structures
    rows = [row for row in every if row.block == home] or [
        row for row in every if row.block == every[0].block
    ]
    part = f"all {len(rows)} {rows[0].what}s of {rows[0].block}" + (
        f", {by_examples(look)}" if asked.needs != "nothing" else ""
    )
    return Lesson(StructureRow, table(rows, StructureRow), no_levels(), part)


@picture.register
def picture_blocks(asked: Blocks, look: Look) -> Lesson:
    rows = look.rebuilt.structures
    return Lesson(
        StructureRow,
        table(rows, StructureRow),
        no_levels(),
        f"all {len(rows)} blocks, {by_examples(look)}",
    )


def by_examples(look: Look) -> str:
    return f"by the first {LIVE_SAMPLES} calibration examples at most; a run looks at all"
