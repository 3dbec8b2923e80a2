"""Telling how far the work is, and stopping when asked."""

from collections.abc import Callable

from engine.errors import Cancelled

Report = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much


def silent(stage: str, done: int, total: int) -> None:
    """A report to nobody."""


def never() -> bool:
    """Nobody asks to stop."""
    return False


def watched(report: Report, cancelled: Callable[[], bool]) -> Report:
    """A report that raises Cancelled once somebody asked to stop."""

    def told(stage: str, done: int, total: int) -> None:
        if cancelled():
            raise Cancelled(f"The run was cancelled while it was {stage[:1].lower()}{stage[1:]}; nothing was kept of it.")
        report(stage, done, total)

    return told
