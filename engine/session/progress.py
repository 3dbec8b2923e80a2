"""Progress of a run and its remaining time."""

from dataclasses import dataclass, field, replace
from time import time
from typing import Any, Literal

from engine.events import Message, ProgressEvent, Stage, counts
from engine.quantities import duration
from engine.results.schema.record import Status
from engine.results.schema.tables import CurveRow

STAGES: tuple[Stage, ...] = (
    "measuring-original",
    "reading-calibration",
    "compressing",
    "measuring-result",
    "writing-examples",
)
# what some techniques do before they compress
PLANNING: frozenset[Stage] = frozenset({"measuring-sensitivity", "rounding-layers", "training"})
# of a curve that is shown while it grows
MOST_ROWS, JUDGED = 2000, ("accuracy", "perplexity", "zero")
ENOUGH = 10  # steps of a stage after which its pace is known, or 2% of them where that is sooner
State = Literal["waiting", "running", "queued-elsewhere", "running-elsewhere", "done", "ended"]
STATES: dict[State, str] = {
    "waiting": "Waiting to begin",
    "queued-elsewhere": "Waiting in another program",
    "running-elsewhere": "Running in another program",
    "done": "Done",
    "ended": "Not finished",
}
OUTSIDE: dict[Status, State] = {
    "queued": "queued-elsewhere",
    "running": "running-elsewhere",
    "done": "done",
}


@dataclass(frozen=True)
class Progress:
    """One stage after the other. Times are seconds since 1970 on one clock."""

    state: State = "waiting"
    event: ProgressEvent | None = None  # the latest one, of a run that is under way here
    # done when the stage was first heard of: what an earlier run had finished took no time
    first: int = 0
    overall: float = 0.0  # of the whole run, 0 to 1, stages counted alike; never goes back
    began: float = field(default_factory=time)  # the stage
    updated: float = field(default_factory=time)  # time of the last event
    # seconds of the stages before, by their identity
    seen: dict[tuple[Any, ...], float] = field(default_factory=dict)
    # of the current training, thinned to what a chart can show
    curves: tuple[CurveRow, ...] = ()

    @classmethod
    def outside(cls, status: Status) -> "Progress":
        """Progress of a run with this status that no worker of this program carries out."""
        return cls(OUTSIDE.get(status, "ended"), overall=float(status == "done"))

    def after(self, message: Message) -> "Progress":
        """Progress after a worker's message."""
        event, before = message.event, self.event
        curves = thinned_curves((*self.curves, *message.curves)) if message.curves else self.curves
        now = replace(self, state="running", event=event, updated=message.time, curves=curves)
        # an identity once more: the next split, or generation
        if (
            before is None
            or event.identity != before.identity
            or event.total != before.total
            or event.done < before.done
        ):
            seen = self.seen
            if before is not None:
                took = self.seen.get(before.identity, 0.0) + message.time - self.began
                seen = self.seen | {before.identity: took}
            now = replace(now, began=message.time, first=event.done, seen=seen)
        return replace(now, overall=max(self.overall, now.whole))

    @property
    def done(self) -> int:
        return self.event.done if self.event else 0

    @property
    def share(self) -> float:
        """Completed share of the stage, 0 to 1."""
        return min(1.0, self.done / self.event.total) if self.event and self.event.total else 0.0

    @property
    def whole(self) -> float:
        """Completed share of the run, by the order of STAGES; 0 in other stages. All steps share
        the place of compression.
        """
        event = self.event
        if event is None:
            return 0.0
        if event.stage == "measuring-step":
            return run_share("compressing", event.step / event.steps)
        begins, part = of_step(event)
        if event.stage in PLANNING:
            return run_share("compressing", begins + part * self.share / 2)
        if event.stage == "compressing":
            planned = any(
                stage in PLANNING and (step, steps) == (event.step, event.steps)
                for _, stage, step, steps, *_ in self.seen
            )
            return run_share(
                "compressing", begins + part * ((1 + self.share) / 2 if planned else self.share)
            )
        return run_share(event.stage, self.share) if event.stage in STAGES else 0.0

    def stage_seconds_left(self, now: float) -> float | None:
        """Remaining seconds of the stage at the current pace; None if it is too early to estimate,
        or overdue.
        """
        if self.event is None:
            return None
        mine, all_mine = self.done - self.first, self.event.total - self.first
        if mine < min(ENOUGH, 0.02 * all_mine) or mine <= 0 or self.updated <= self.began:
            return None
        left = (self.updated - self.began) * (all_mine / min(mine, all_mine) - 1)
        left -= now - self.updated
        return left if left >= 0 else None

    def seconds_left(self, now: float) -> float | None:
        """Remaining seconds of the run, once the rest is known: the last measurement takes as long
        as the first. None if unknown.
        """
        left = self.stage_seconds_left(now)
        if left is None or self.event.steps > 1:
            return None
        match self.event.stage:
            case "compressing":
                ahead = self.seen.get(ProgressEvent("measuring-original").identity)
                return None if ahead is None else left + ahead
            case "measuring-result":
                return left
        return None

    def sentence(self, now: float | None = None) -> str:
        """Progress in words, such as "Compressing · 12 of 28 · about 9 s left"."""
        if self.event is None:
            return STATES[self.state]
        now = time() if now is None else now
        run, stage = self.seconds_left(now), self.stage_seconds_left(now)
        left = ""
        if run is not None:
            left = f"about {duration(max(1, run))} left"
        elif stage is not None:
            left = f"about {duration(max(1, stage))} left in this step"
        return " · ".join(part for part in (self.event.title, counts(self.event), left) if part)


def run_share(stage: Stage, share: float) -> float:
    """Share of the run completed at this point of a stage."""
    return (STAGES.index(stage) + share) / len(STAGES)


def of_step(event: ProgressEvent) -> tuple[float, float]:
    """Start and length of a step within all compression, as shares."""
    steps = max(1, event.steps)
    return (max(1, event.step) - 1) / steps, 1 / steps


def thinned_curves(curves: tuple[CurveRow, ...]) -> tuple[CurveRow, ...]:
    """Rows of every second, fourth, eighth, ... step if there are too many; rows that were measured
    on held-out examples are kept.
    """
    every = 1
    while len(curves) > MOST_ROWS and every <= curves[-1].step:
        every *= 2
        curves = tuple(row for row in curves if row.step % every == 0 or row.name in JUDGED)
    return curves
