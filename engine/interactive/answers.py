"""Entry point of live questions in a worker. Importing this module registers all handlers."""

from engine.interactive import explain as explain
from engine.interactive import (  # noqa: F401
    model_views,
    observer_ranges,
    rank_planner,
    run_forecast,
    soft_targets,
    what_if,
)
from engine.interactive.registry import answer as handled
from engine.queries import Answer, Query
from engine.runtime.worker_setup import setup_worker

__all__ = ["answer"]


def answer(query: Query[Answer]) -> Answer:
    """Return the answer to a question, in a process that is set up for it."""
    setup_worker()
    return handled(query)
