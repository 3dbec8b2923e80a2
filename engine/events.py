"""Progress events sent by workers, and their texts. Workers send fields; the dashboard and the
command line build sentences here, so no text is ever parsed. Importing this module imports neither
torch nor Streamlit.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from engine.quantities import duration, megabytes
from engine.results.schema.tables import CurveRow

Stage = Literal[
    "starting",
    "waiting-for-worker",
    "downloading",
    "reading-documentation",
    "cutting-passages",
    "tokenizing",
    "tokenizing-calibration",
    "measuring-perplexity",
    "measuring-accuracy",
    "measuring-masked-tokens",
    "measuring-original",
    "measuring-step",
    "measuring-variant",
    "measuring-result",
    "reading-calibration",
    "computing-gradients",
    "measuring-sensitivity",
    "rounding-layers",
    "finding-ranks",
    "factorizing",
    "asking-teacher",
    "generating-text",
    "training",
    "compressing",
    "resuming",
    "removing-structures",
    "measuring-speed",
    "comparing-student",
    "analyzing-errors",
    "writing-examples",
]
# stages of an evaluation; a run reports which model it evaluates instead
EVALUATION: frozenset[Stage] = frozenset(
    {"measuring-perplexity", "measuring-accuracy", "measuring-masked-tokens"}
)
PHRASES: dict[Stage, str] = {
    "starting": "starting",
    "waiting-for-worker": "waiting for a worker",
    "downloading": "downloading",
    "reading-documentation": "reading the documentation of the installed packages",
    "cutting-passages": "cutting labeled passages",
    "tokenizing": "tokenizing",
    "tokenizing-calibration": "tokenizing calibration data",
    "measuring-perplexity": "measuring perplexity",
    "measuring-accuracy": "measuring accuracy",
    "measuring-masked-tokens": "evaluating masked tokens",
    "measuring-original": "measuring the original",
    "measuring-step": "measuring after a step",
    "measuring-variant": "measuring a variant",
    "measuring-result": "measuring the result",
    "reading-calibration": "reading calibration data",
    "computing-gradients": "computing gradients of the loss",
    "measuring-sensitivity": "measuring each layer's sensitivity",
    "rounding-layers": "rounding layers",
    "finding-ranks": "finding ranks",
    "factorizing": "factorizing",
    "asking-teacher": "computing the teacher's outputs",
    "generating-text": "generating text with the teacher",
    "training": "training",
    "compressing": "compressing",
    "resuming": "resuming from an earlier run",
    "removing-structures": "removing structures",
    "measuring-speed": "measuring the speed",
    "comparing-student": "comparing student and teacher",
    "analyzing-errors": "analyzing the student's errors",
    "writing-examples": "writing examples",
}


BEST_FORMATS = {"accuracy": ".1%", "perplexity": ".4g", "": ".4g"}


@dataclass(frozen=True)
class ProgressEvent:
    """``done`` of ``total`` units of a stage; a total of 0 means that they are not counted."""

    stage: Stage
    done: int = 0
    total: int = 0
    # step of the recipe, counted from 1, and number of steps; 0 for a single step
    step: int = 0
    steps: int = 0

    @property
    def identity(self) -> tuple[Any, ...]:
        """Key that is equal for all events of one stage of a run, whatever they count."""
        return type(self).__name__, self.stage, self.step, self.steps

    @property
    def phrase(self) -> str:
        """Current activity, such as "reading calibration data"."""
        if self.stage == "measuring-step":
            return f"measuring after step {self.step} of {self.steps}"
        return PHRASES[self.stage]

    @property
    def details(self) -> str:
        """Numbers that change within the stage, such as a loss; empty if there are none."""
        return ""

    @property
    def title(self) -> str:
        """Title of the stage with its step and details, capitalized."""
        prefix = f"step {self.step} of {self.steps}: " if self.steps > 1 else ""
        words = self.phrase if self.stage == "measuring-step" else f"{prefix}{self.phrase}"
        title = f"{words[:1].upper()}{words[1:]}"
        return f"{title} · {self.details}" if self.details else title


@dataclass(frozen=True)
class VariantEvent(ProgressEvent):
    """Measurement of one of several variants, counted from 1."""

    variant: int = 1
    variants: int = 1

    @property
    def identity(self) -> tuple[Any, ...]:
        return *super().identity, self.variant, self.variants

    @property
    def phrase(self) -> str:
        return f"measuring variant {self.variant} of {self.variants}"


@dataclass(frozen=True)
class DownloadEvent(ProgressEvent):
    """Download of a model; ``done`` and ``total`` are bytes."""

    model: str = ""

    @property
    def identity(self) -> tuple[Any, ...]:
        return *super().identity, self.model

    @property
    def phrase(self) -> str:
        return f"downloading {self.model}"


@dataclass(frozen=True)
class TrainingEvent(ProgressEvent):
    """State of a training after a step."""

    network: str = ""  # which network is trained, such as "student" or "generation 2"
    loss: float | None = None
    metric: Literal["", "accuracy", "perplexity"] = ""  # metric of the best state so far
    best: float | None = None
    rate: float | None = None
    examples_per_second: float | None = None

    @property
    def details(self) -> str:
        loss = "" if self.loss is None else f"loss {self.loss:.3f}"
        number = "" if self.best is None else f"{self.best:{BEST_FORMATS[self.metric]}}"
        best = f"{self.metric} {number}" if number else ""
        return ", ".join(part for part in (self.network, loss, best) if part)


@dataclass(frozen=True)
class PrecisionEvent(TrainingEvent):
    """State of a training in one of several number formats, each with its own throughput."""

    precision: str = "float32"

    @property
    def identity(self) -> tuple[Any, ...]:
        return *super().identity, self.precision

    @property
    def phrase(self) -> str:
        return f"training in {self.precision}"


@dataclass(frozen=True)
class TicketEvent(TrainingEvent):
    """State of the training of one network of a lottery-ticket experiment."""

    round: int = 0
    seed: int = 0

    @property
    def details(self) -> str:
        return f"{self.network}, round {self.round}, seed {self.seed}" if self.network else ""


@dataclass(frozen=True)
class WorkerEvent(ProgressEvent):
    """Delay of a run on an external cluster."""

    stage: Stage = "waiting-for-worker"
    cause: Literal["waiting", "silent", "restarting", "lost"] = "waiting"
    workers: int = 0  # workers that can take the run
    busy: int = 0
    seconds: float = 0.0  # since the worker's last signal

    @property
    def phrase(self) -> str:
        match self.cause:
            case "waiting":
                return f"waiting for a worker: {occupation(self.workers, self.busy)}"
            case "silent":
                return f"no signal from the worker for {duration(self.seconds)}"
            case "restarting":
                return "the worker was lost; waiting to restart on another one"
            case "lost":
                return "the worker was lost, and no other is connected; waiting for one"


Report = Callable[[ProgressEvent], None]


def counts(event: ProgressEvent) -> str:
    """Progress in words, such as "12 of 28"; empty if nothing is counted."""
    if not event.total:
        return ""
    if event.stage == "downloading":
        return f"{megabytes(event.done)} of {megabytes(event.total)}"
    return f"{event.done} of {event.total}"


def occupation(workers: int, busy: int) -> str:
    """Describe the workers, such as "no worker is connected to the cluster"."""
    if not workers:
        return "no worker is connected to the cluster"
    if busy == workers:
        if busy == 1:
            return "its only worker is busy with other work"
        return f"all {busy} workers are busy with other work"
    if workers == 1:
        return "its only worker is not busy"
    return f"{busy} of {workers} workers are busy"


# --- between processes ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """An event, with the rows of training curves since the last one."""

    event: ProgressEvent
    time: float  # seconds since 1970, by the clock of the process that sends it
    curves: tuple[CurveRow, ...] = ()
    worker: str = ""  # address of the worker; empty if the app itself sends it

    def as_dict(self) -> dict[str, Any]:
        """Plain data, which is all that a scheduler passes on."""
        return asdict(self) | {"kind": type(self.event).__name__}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Message":
        """Inverse of ``as_dict``."""
        kind = EVENTS[plain["kind"]]
        names = {field.name for field in fields(kind)}
        event = kind(**{name: value for name, value in plain["event"].items() if name in names})
        curves = tuple(CurveRow(**row) for row in plain["curves"])
        return cls(event, plain["time"], curves, plain["worker"])


EVENTS: dict[str, type[ProgressEvent]] = {
    kind.__name__: kind
    for kind in (
        ProgressEvent,
        VariantEvent,
        DownloadEvent,
        TrainingEvent,
        PrecisionEvent,
        TicketEvent,
        WorkerEvent,
    )
}
