"""Progress reports of an evaluation, and stopping when the user asks for it."""

from collections.abc import Callable

from engine.errors import Cancelled
from engine.events import ProgressEvent, Report


def ignore_progress(event: ProgressEvent) -> None:
    """Discard a progress event."""


def never_cancelled() -> bool:
    """Return False: the user does not ask to stop."""
    return False


def cancellable_report(report: Report, cancelled: Callable[[], bool]) -> Report:
    """Wrap a progress report so that it raises Cancelled after the user asked to stop."""

    def report_unless_cancelled(event: ProgressEvent) -> None:
        if cancelled():
            raise Cancelled(
                f"The run was canceled while it was {event.phrase}; nothing was kept of it."
            )
        report(event)

    return report_unless_cancelled
