"""Progress reports and cancellation of an evaluation."""

from collections.abc import Callable

from engine.errors import Cancelled
from engine.events import ProgressEvent, Report


def ignore_progress(event: ProgressEvent) -> None:
    """Discard a progress event."""


def never_cancelled() -> bool:
    """Return False, for a caller that cannot cancel."""
    return False


def cancellable_report(report: Report, cancelled: Callable[[], bool]) -> Report:
    """Progress report that raises Cancelled after the user stops the run."""

    def report_unless_cancelled(event: ProgressEvent) -> None:
        if cancelled():
            raise Cancelled(
                f"The run was canceled while it was {event.phrase}; no results were kept."
            )
        report(event)

    return report_unless_cancelled
