"""Record of a run: its recipe, status, and numbers with their measurement protocol."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from engine.config.technique import FrozenModel
from engine.recipe import Recipe, with_newer_fields

Status = Literal["queued", "running", "done", "failed", "cancelled", "interrupted", "unreadable"]
ACTIVE: tuple[Status, ...] = ("queued", "running")
FINISHED: tuple[Status, ...] = ("done", "failed", "cancelled", "interrupted", "unreadable")


def in_utc(time: datetime) -> datetime:
    """Convert a time to UTC; a time without a zone is read as UTC."""
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise ValueError("it is outside the years 1 to 9999") from None


Count = Annotated[int, Field(ge=0, lt=2**63)]  # what tables and figures can hold
Moment = Annotated[datetime, AfterValidator(in_utc)]
RELATIVE_TO_REMAINING = (
    "This run is from an earlier version: its bits per compressed weight are relative to the "
    "remaining parameters, not to the original model's. Run it again to compare it with newer runs."
)


class Scores(FrozenModel):
    """Quality and size of one model, original or compressed. What a task does not measure is absent
    (None).
    """

    size_bytes: Count  # the model's weight files
    # of the compressed layers, per original parameter; before compression, of the layers to
    # compress
    bits_per_weight: float
    bits_per_parameter: float | None = None  # 8 x size_bytes / parameters of the original model
    compression: float = 1.0  # original size_bytes / size_bytes
    parameters: Count = 0  # each tied tensor once
    perplexity: float | None = None  # exp of the mean token loss
    loss: float | None = None  # mean cross-entropy, natural logarithm, per token or per example
    accuracy: float | None = None
    macro_precision: float | None = None
    macro_recall: float | None = None
    macro_f1: float | None = None
    agreement: float | None = None  # share of equal arg-max with the original, on the same inputs


class Protocol(FrozenModel):
    """Complete measurement protocol, so that other tools can be compared with it."""

    task: str
    data: str
    fingerprint: str  # of the data as read
    measure: str  # one sentence
    context: Count | None = None
    windows: Count | None = None
    targets: Count | None = None  # tokens predicted
    samples: Count | None = None  # examples judged
    compute_dtype: str = "float32"


class Summary(FrozenModel):
    """The numbers of a finished run; ``python -m engine run --json`` prints this with the layers
    table.
    """

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
    peak_rss_bytes: Count
    # whether the user ended its training: another run of the recipe would go further
    ended_early: bool = False
    notes: tuple[str, ...] = ()  # remarks on the results

    @model_validator(mode="after")
    def check_same_measures(self) -> "Summary":
        for name in ("perplexity", "accuracy"):
            if (getattr(self.baseline, name) is None) != (getattr(self.result, name) is None):
                raise ValueError(f"{name} is given for one of baseline and result only")
        return self

    @model_validator(mode="after")
    def add_bits_per_parameter(self) -> "Summary":
        """Compute the bits per parameter of an older record from its sizes and the original's
        parameters.
        """
        for scores in (self.baseline, self.result):
            if scores.bits_per_parameter is None and self.baseline.parameters:
                object.__setattr__(
                    scores, "bits_per_parameter", 8 * scores.size_bytes / self.baseline.parameters
                )
        return self


class RunRecord(FrozenModel):
    id: str
    key: str  # Recipe.key(): equal keys have equal results
    recipe: Recipe
    status: Status = "queued"
    created: Moment = Field(default_factory=lambda: datetime.now(UTC))
    finished: Moment | None = None
    message: str = ""  # what happened and what to do, for every status that is not "done"
    # "pid:start time" of the process that runs it; a record whose owner is gone was interrupted
    owner: str = ""
    # visitor id on a shared server (see engine.session.visitors); empty otherwise
    visitor: str = ""
    summary: Summary | None = None

    @model_validator(mode="before")
    @classmethod
    def add_newer_fields(cls, given: Any) -> Any:
        return (
            given | {"recipe": with_newer_fields(given["recipe"])}
            if isinstance(given, dict) and "recipe" in given
            else given
        )

    @model_validator(mode="after")
    def add_note_on_older_counts(self) -> "RunRecord":
        """Add a note if the bits per compressed weight of an older record are relative to the
        remaining parameters.
        """
        older = self.summary and "bits_per_parameter" not in self.summary.result.model_fields_set
        if older and any(step.produces == "fewer" for step in self.recipe.steps):
            summary = self.summary.model_copy(
                update={"notes": (*self.summary.notes, RELATIVE_TO_REMAINING)}
            )
            object.__setattr__(self, "summary", summary)
        return self

    @property
    def label(self) -> str:
        return self.recipe.label()
