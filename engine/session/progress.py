"""Progress of a run and its remaining time."""

import re
from dataclasses import dataclass, field, replace
from time import time
from typing import Any

from engine.quantities import duration
from engine.results.schema.tables import CurveRow

STAGES = (
    "Measuring the original",
    "Reading calibration data",
    "Compressing",
    "Measuring the result",
    "Writing examples",
)
FIRST_MEASUREMENT, _, COMPRESSING, LAST_MEASUREMENT, _ = STAGES
# what some techniques do before they compress
PLANNING = {"Measuring each layer's sensitivity", "Rounding layers", "Training"}
# in a recipe of several
IN_STEP, BETWEEN = (
    re.compile(r"Step (\d+) of (\d+): "),
    re.compile(r"Measuring after step (\d+) of (\d+)"),
)
# of a curve that is shown while it grows
MOST_ROWS, JUDGED = 2000, ("accuracy", "perplexity", "zero")
ENOUGH = 10  # steps of a stage after which its pace is known, or 2% of them where that is sooner
OUTSIDE = {
    "queued": "Waiting in another program",
    "running": "Running in another program",
    "done": "Done",
    "cancelled": "Cancelled",
}


@dataclass(frozen=True)
class Progress:
    """One stage after the other. Times are seconds since 1970 on one clock."""

    stage: str = "Waiting to begin"
    done: int = 0
    total: int = 0
    # done when the stage was first heard of: what an earlier run had finished took no time
    first: int = 0
    overall: float = 0.0  # of the whole run, 0 to 1, stages counted alike; never goes back
    began: float = field(default_factory=time)  # the stage
    told: float = field(default_factory=time)  # the last news
    # seconds of the stages before, of all that had one name
    seen: dict[str, float] = field(default_factory=dict)
    # of the current training, thinned to what a chart can show
    curves: tuple[CurveRow, ...] = ()

    @classmethod
    def outside(cls, status: str) -> "Progress":
        """Progress of a run with this status that another program carries out."""
        return cls(OUTSIDE.get(status, "Not finished"), overall=float(status == "done"))

    def after(self, news: dict[str, Any]) -> "Progress":
        """Progress after a worker's message with stage, done, total and time."""
        curves = thinned((*self.curves, *(CurveRow(*row) for row in news.get("curves", ()))))
        now = replace(
            self,
            stage=news["stage"],
            done=news["done"],
            total=news["total"],
            told=news["time"],
            curves=curves,
        )
        # a name once more: the next split, or generation
        if now.name != self.name or now.total != self.total or now.done < self.done:
            took = self.seen.get(self.name, 0.0) + now.told - self.began
            now = replace(now, began=now.told, first=now.done, seen=self.seen | {self.name: took})
        return replace(now, overall=max(self.overall, now.whole))

    @property
    def name(self) -> str:
        """Name of the stage, without details after a dot, such as a loss."""
        return self.stage.partition(" · ")[0]

    @property
    def share(self) -> float:
        """Completed share of the stage, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def whole(self) -> float:
        """Completed share of the run, by the order of STAGES; 0 in other stages. All steps share
        the place of compression.
        """
        if between := BETWEEN.fullmatch(self.name):
            return placed(COMPRESSING, int(between[1]) / int(between[2]))
        begins, part, name = of_step(self.name)
        if name in PLANNING:
            return placed(COMPRESSING, begins + part * self.share / 2)
        if name == COMPRESSING:
            planned = any(
                of_step(each) in {(begins, part, one) for one in PLANNING} for each in self.seen
            )
            return placed(
                COMPRESSING, begins + part * ((1 + self.share) / 2 if planned else self.share)
            )
        return placed(self.stage, self.share) if self.stage in STAGES else 0.0

    def stage_seconds_left(self, now: float) -> float | None:
        """Remaining seconds of the stage at the current pace; None if it is too early to estimate,
        or overdue.
        """
        mine, all_mine = self.done - self.first, self.total - self.first
        if mine < min(ENOUGH, 0.02 * all_mine) or mine <= 0 or self.told <= self.began:
            return None
        left = (self.told - self.began) * (all_mine / min(mine, all_mine) - 1) - (now - self.told)
        return left if left >= 0 else None

    def seconds_left(self, now: float) -> float | None:
        """Remaining seconds of the run, once the rest is known: the last measurement takes as long
        as the first. None if unknown.
        """
        left = self.stage_seconds_left(now)
        ahead = {COMPRESSING: self.seen.get(FIRST_MEASUREMENT), LAST_MEASUREMENT: 0.0}.get(
            self.stage
        )
        return left + ahead if left is not None and ahead is not None else None

    def sentence(self, now: float | None = None) -> str:
        """Progress in words, such as "Compressing · 12 of 28 · about 9 s left"."""
        now = time() if now is None else now
        run, stage = self.seconds_left(now), self.stage_seconds_left(now)
        counted = [f"{self.done} of {self.total}"] if self.total else []
        left = (
            [f"about {duration(max(1, run))} left"]
            if run is not None
            else [f"about {duration(max(1, stage))} left in this step"]
            if stage is not None
            else []
        )
        return " · ".join([self.stage, *counted, *left])


def placed(stage: str, share: float) -> float:
    """Share of the run completed at this point of a stage."""
    return (STAGES.index(stage) + share) / len(STAGES)


def of_step(stage: str) -> tuple[float, float, str]:
    """Start and length of a step within all compression, as shares, and the name of its stage."""
    if not (found := IN_STEP.match(stage)):
        return 0.0, 1.0, stage
    number, steps, name = int(found[1]), int(found[2]), stage[found.end() :]
    return (number - 1) / steps, 1 / steps, name[:1].upper() + name[1:]


def thinned(curves: tuple[CurveRow, ...]) -> tuple[CurveRow, ...]:
    """Every second, fourth, eighth ... step where there are many; what was judged on held-out
    examples stays.
    """
    every = 1
    while len(curves) > MOST_ROWS and every <= curves[-1].step:
        every *= 2
        curves = tuple(row for row in curves if row.step % every == 0 or row.name in JUDGED)
    return curves
