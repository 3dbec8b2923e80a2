"""Queries for a page of the list of runs, and their results."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from engine.config.registry import TECHNIQUES
from engine.results.schema.record import RunRecord, Scores

Order = Literal["newest", "oldest", "smallest", "compression", "quality", "model", "setting"]
PAGE_SIZE = 50
MAX_CELL_CHARACTERS = 200  # per cell; names come from untrusted files
MAX_SEARCHED_CHARACTERS = 4000  # of a run's text
MAX_SEARCH_WORDS = 8  # of one search


@dataclass(frozen=True)
class RunQuery:
    """Filters, sort order and start of a page of runs. Empty filters match every run.

    ``after`` is the ``position`` of the last row of the previous page, so that a page does not
    change when new runs arrive before it.
    """

    search: str = ""  # words that must all occur in a run's text (see ``IndexedRun.words``)
    family: str = ""
    technique: str = ""
    model: str = ""
    status: str = ""
    measured: bool = False  # only finished runs that have numbers
    order: Order = "newest"
    limit: int = PAGE_SIZE  # -1: no limit
    after: tuple[float | str, str] | None = None

    @property
    def terms(self) -> list[str]:
        return self.search[:MAX_CELL_CHARACTERS].casefold().split()[:MAX_SEARCH_WORDS]


@dataclass(frozen=True)
class RunRow:
    """One run, as it is listed. Sizes are in bytes; what was not measured is NaN."""

    id: str
    status: str
    created: datetime
    label: str  # its steps in a few words; "" where nothing is known of them
    model: str
    message: str
    size_bytes: float
    measure: str  # "perplexity", "accuracy" or ""
    before: float
    after: float
    position: tuple[float | str, str]  # in the order asked for


@dataclass(frozen=True)
class RunPage:
    """One page of runs. ``matching`` counts the runs that match the filters, ``total`` all runs;
    ``models``, ``techniques`` and ``statuses`` are choices for filters, most frequent first.
    """

    rows: tuple[RunRow, ...] = ()
    matching: int = 0
    total: int = 0
    has_more: bool = False
    models: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()


@dataclass(frozen=True)
class IndexedRun:
    """Columns of the index, with the complete record. Numbers are floats, which SQLite stores at
    any size.
    """

    id: str
    key: str
    status: str
    created: float  # seconds since 1970
    owner: str
    label: str
    model: str
    task: str
    device: str
    techniques: str  # "|gptq|wanda|": names between bars
    families: str
    message: str
    words: str  # searched text
    measured: int
    size: float | None
    compression: float | None
    measure: str
    before: float | None
    after: float | None
    lost: float | None  # relative perplexity or points of accuracy; above 0 is worse
    record: str = field(repr=False)

    @classmethod
    def from_record(cls, run: RunRecord) -> "IndexedRun":
        """Build the columns from a record.

        Raises OverflowError for numbers beyond a float.
        """
        known = run.status != "unreadable" or bool(run.recipe.steps)
        steps = [step.technique for step in run.recipe.steps]
        label, model = (run.label, run.recipe.model) if known else ("", "")
        summary = run.summary
        searched = [
            run.id,
            run.status,
            model,
            label,
            *steps,
            *(TECHNIQUES[step].title for step in steps if step in TECHNIQUES),
            run.recipe.task.kind if known else "",
            run.recipe.task.source if known else "",
            run.message,
            *([summary.architecture, *summary.notes] if summary else []),
        ]
        return cls(
            id=run.id,
            key=run.key,
            status=run.status,
            created=run.created.timestamp(),
            owner=run.owner,
            label=label[:MAX_CELL_CHARACTERS],
            model=model,
            task=run.recipe.task.kind,
            device=run.recipe.device,
            techniques=between_bars(steps),
            families=between_bars(step.family for step in run.recipe.steps),
            message=run.message[:MAX_CELL_CHARACTERS],
            words="\n".join(searched).casefold()[:MAX_SEARCHED_CHARACTERS],
            **score_columns(summary.baseline, summary.result)
            if summary and run.status == "done"
            else NO_NUMBERS,
            record=run.model_dump_json(),
        )


NO_NUMBERS = {
    "measured": 0,
    "size": None,
    "compression": None,
    "measure": "",
    "before": None,
    "after": None,
    "lost": None,
}


def between_bars(names: Iterable[str]) -> str:
    return "".join(f"|{name}" for name in dict.fromkeys(names)) + "|"


def score_columns(baseline: Scores, result: Scores) -> dict[str, Any]:
    """Numbers that a list shows of a run's scores."""
    measure = "accuracy" if baseline.perplexity is None else "perplexity"
    before, after = (
        None if value is None else float(value)
        for value in (getattr(baseline, measure), getattr(result, measure))
    )
    return {
        "measured": 1,
        "size": float(result.size_bytes),
        "compression": float(result.compression),
        "measure": measure,
        "before": before,
        "after": after,
        "lost": quality_loss(measure, before, after),
    }


def quality_loss(measure: str, before: float | None, after: float | None) -> float | None:
    if before is None or after is None or (measure == "perplexity" and before <= 0):
        return None
    return before - after if measure == "accuracy" else (after - before) / before


def time_from_seconds(seconds: float) -> datetime:
    """Convert seconds since 1970 to a time; 1970 if they are out of range."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC)


def merged_page(pages: list[RunPage], query: RunQuery) -> RunPage:
    """Merge the pages that several stores returned for one query."""
    descending = query.order in ("newest", "compression")
    rows = sorted(
        (row for page in pages for row in page.rows),
        key=lambda row: row.position,
        reverse=descending,
    )
    shown = rows if query.limit < 0 else rows[: query.limit]
    return RunPage(
        tuple(shown),
        sum(page.matching for page in pages),
        sum(page.total for page in pages),
        len(shown) < len(rows) or any(page.has_more for page in pages),
        *(
            tuple(dict.fromkeys(choice for page in pages for choice in getattr(page, name)))
            for name in ("models", "techniques", "statuses")
        ),
    )
