"""Structured pruning at work: how much each structure of one block matters, and which go."""

from engine.catalog.structured import Blocks, Structured
from engine.results.lessons import Lesson
from engine.results.tables import StructureRow, table
from engine.work.answers import LIVE_SAMPLES, Look
from engine.work.lessons.pictures import no_levels, picture


@picture.register
def _(asked: Structured, look: Look) -> Lesson:
    """Those that run through the layer, or else stand in its block."""
    home = look.rebuilt.homes.get(look.part.name, look.part.block)
    every = look.rebuilt.structures
    rows = [row for row in every if row.block == home] or [row for row in every if row.block == every[0].block]
    part = f"all {len(rows)} {rows[0].what}s of {rows[0].block}" + (f", {by_examples(look)}" if asked.needs != "nothing" else "")
    return Lesson(StructureRow, table(rows, StructureRow), no_levels(), part)


@picture.register
def _(asked: Blocks, look: Look) -> Lesson:
    rows = look.rebuilt.structures
    return Lesson(StructureRow, table(rows, StructureRow), no_levels(), f"all {len(rows)} blocks, {by_examples(look)}")


def by_examples(look: Look) -> str:
    return f"by the first {LIVE_SAMPLES} calibration examples at most; a run looks at all"
