"""Entry point of runs in workers, called by name. Arguments and results are plain data or
tables.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.events import Report
from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.results.schema.outcome import Outcome
from engine.runtime.worker_setup import setup_worker


def run_job(
    recipe: dict[str, Any],
    run_id: str,
    keep: str,
    report: Report,
    cancelled: Callable[[], bool],
    stream: Callable[[list[Any]], None],
) -> Outcome:
    setup_worker()
    return run(
        Recipe.from_dict(recipe),
        run_id,
        keep=Path(keep),
        report=report,
        cancelled=cancelled,
        stream=stream,
    )
