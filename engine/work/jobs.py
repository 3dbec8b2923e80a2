"""What the session asks workers for, by name. Arguments and answers are plain data or tables."""

from collections.abc import Callable
from pathlib import Path

from engine.recipe import Recipe
from engine.results.outcome import Outcome
from engine.work.quiet import ready
from engine.work.run import run


def run_job(
    recipe: dict, run_id: str, keep: str, report: Callable[[str, int, int], None], cancelled: Callable[[], bool], stream: Callable[[list], None]
) -> Outcome:
    ready()
    return run(Recipe.of(recipe), run_id, keep=Path(keep), report=report, cancelled=cancelled, stream=stream)
