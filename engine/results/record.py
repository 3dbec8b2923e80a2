"""What is known of a run: its recipe, where it stands, and its numbers with the protocol they were measured under."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from engine.catalog.technique import Frozen
from engine.recipe import Recipe

Status = Literal["queued", "running", "done", "failed", "cancelled", "interrupted", "unreadable"]
FINISHED: tuple[Status, ...] = ("done", "failed", "cancelled", "interrupted", "unreadable")


class Scores(Frozen):
    """Quality and size of one model, original or compressed. What a task does not measure is absent (None)."""

    size_bytes: int  # the model's weight files
    bits_per_weight: float  # bytes of the compressible layers x 8 / their parameters
    compression: float = 1.0  # original size_bytes / size_bytes
    parameters: int = 0  # each tied tensor once
    perplexity: float | None = None  # exp of the mean token loss
    loss: float | None = None  # mean cross-entropy, natural logarithm, per token or per example
    accuracy: float | None = None
    macro_precision: float | None = None
    macro_recall: float | None = None
    macro_f1: float | None = None
    agreement: float | None = None  # share of equal arg-max with the original, on the same inputs


class Protocol(Frozen):
    """How quality was measured, in full, so that another tool can be held against it."""

    task: str
    data: str
    fingerprint: str  # of the data as read
    measure: str  # one sentence
    context: int | None = None
    windows: int | None = None
    targets: int | None = None  # tokens predicted
    samples: int | None = None  # examples judged
    compute_dtype: str = "float32"


class Summary(Frozen):
    """The numbers of a finished run; ``python -m engine run --json`` prints this with the layers table."""

    run: str
    model: str
    revision: str  # commit on the Hub, or a hash of the local files
    architecture: str
    device: str
    protocol: Protocol
    baseline: Scores
    result: Scores
    seconds: float
    compress_seconds: float
    peak_rss_bytes: int
    ended_early: bool = False  # whether a person ended its training: another run of the recipe would go further
    notes: tuple[str, ...] = ()  # what a reader of the numbers should know


class RunRecord(Frozen):
    id: str
    key: str  # Recipe.key(): equal keys, equal answers
    recipe: Recipe
    status: Status = "queued"
    created: datetime = Field(default_factory=lambda: datetime.now(UTC))
    finished: datetime | None = None
    message: str = ""  # what happened and what to do, for every status that is not "done"
    owner: str = ""  # "pid:start time" of the process that runs it; a record whose owner is gone was interrupted
    summary: Summary | None = None

    @property
    def label(self) -> str:
        return self.recipe.label()
