"""Ownership of runs and quotas for visitors of a shared server."""

import hashlib
from collections.abc import Iterable

from engine.errors import PlainError
from engine.results.schema.record import RunRecord
from engine.runtime.settings import Sharing

NOT_YOURS = (
    "This run was started by another visitor, so you can view it but not change it; run its "
    "recipe to get your own."
)
LATE = (
    "The run was stopped after {time}, the maximum on this server; choose a smaller "
    "model, fewer tokens or fewer steps."
)


def visitor_id(secret: str) -> str:
    """Id under which a visitor's runs are stored: a hash, from which the secret in the browser
    cannot be recovered.
    """
    return hashlib.sha256(secret.encode()).hexdigest()[:16]


def may_change(record: RunRecord, visitor: str, sharing: Sharing | None) -> bool:
    """Return True if the visitor may cancel or delete the run: their own on a shared server,
    otherwise any.
    """
    return sharing is None or (visitor != "" and record.visitor == visitor)


def check_owner(record: RunRecord, visitor: str, sharing: Sharing | None) -> None:
    """Check that the visitor may change the run.

    Raises PlainError if it belongs to someone else.
    """
    if not may_change(record, visitor, sharing):
        raise PlainError(NOT_YOURS)


def check_quota(live: Iterable[RunRecord], visitor: str, sharing: Sharing | None) -> None:
    """Check the limits on queued and running runs.

    Raises PlainError if the visitor, or all visitors together, have reached theirs.
    """
    if sharing is None:
        return
    records = list(live)
    own = sum(record.visitor == visitor for record in records)
    if own >= sharing.runs:
        raise PlainError(
            f"You have {own} active {runs(own)}, the maximum per visitor on this server; "
            "wait for one to finish, or cancel one."
        )
    if len(records) >= sharing.queue:
        raise PlainError(
            f"This server has {len(records)} active {runs(len(records))}, its maximum; try "
            "again when some have finished."
        )


def runs(count: int) -> str:
    return "run" if count == 1 else "runs"
