"""Telling how far the work is, and stopping when asked."""

from collections.abc import Callable

from engine.errors import Cancelled

Report = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much


def silent(stage: str, done: int, total: int) -> None:
    """Discard a progress report."""


def never() -> bool:
    """Nobody asks to stop."""
    return False


def watched(report: Report, cancelled: Callable[[], bool]) -> Report:
    """Wrap a progress report so that it raises Cancelled after the user asked to stop."""

    def told(stage: str, done: int, total: int) -> None:
        if cancelled():
            raise Cancelled(
                f"The run was canceled while it was {stage[:1].lower()}{stage[1:]}; nothing "
                "was kept of it."
            )
        report(stage, done, total)

    return told
