"""Forecast of a run's seconds and memory: its workload times the measured throughput of this
machine.

What the model, the technique and the data take is measured in short probes (``paces``); what past
runs took corrects the sum.
"""

from dataclasses import dataclass, replace

from engine.config.technique import Technique
from engine.evaluation.baseline import baseline_known
from engine.forecast.duration import seconds_of
from engine.forecast.job import Job
from engine.forecast.memory import peak_of
from engine.forecast.workload import Trials, trials_of
from engine.queries import PastRun

CORRECTION = 4.0  # at most, by what a past run took


@dataclass(frozen=True)
class Cost:
    seconds: float
    peak_rss_bytes: float


def cost_of(job: Job, past: PastRun | None = None) -> Cost:
    """``past`` is a run like it on this machine; numbers are corrected by as much as its forecast
    was off.
    """
    known = all(baseline_known(each.recipe, each.folder) for each in job.by_split)
    cost = Cost(seconds_of(job, known), peak_of(job))
    if past is None:
        return cost
    then = replace(job, recipe=past.recipe, settings=job.settings | settings_then(job, past))
    # it was not recorded whether the original's quality was known
    ways = [seconds_of(then, True), seconds_of(then, False)]
    off = min((past.seconds / way for way in ways), key=lambda ratio: max(ratio, 1 / ratio))
    return Cost(
        cost.seconds * within(off),
        cost.peak_rss_bytes * within(past.peak_rss_bytes / peak_of(then)),
    )


def settings_then(job: Job, past: PastRun) -> dict[str, Technique]:
    """The past run's own technique on the same layers."""
    how = past.recipe.steps[-1]
    return dict.fromkeys(job.settings, how) if trials_of(how, 1) == Trials() else {}


def within(ratio: float) -> float:
    return min(CORRECTION, max(1 / CORRECTION, ratio))


__all__ = ["Cost", "Job", "cost_of"]
