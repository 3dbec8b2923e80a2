"""Forecast of a run's duration and memory: its workload times the measured throughput of this
machine.

Short probes measure the model, the technique and the data (``throughput``), and earlier runs
correct the sum.
"""

from dataclasses import dataclass, replace

from engine.config.technique import Technique
from engine.evaluation.baseline import is_baseline_cached
from engine.forecast.duration import run_seconds
from engine.forecast.job import Job
from engine.forecast.memory import peak_bytes
from engine.queries import PastRun
from engine.step.workload import SearchWork
from engine.techniques.implementations import search_work

CORRECTION = 4.0  # maximum correction factor from an earlier run


@dataclass(frozen=True)
class Cost:
    seconds: float
    peak_rss_bytes: float


def cost_of(job: Job, past: PastRun | None = None) -> Cost:
    """Forecast of a job. ``past`` is a similar run on this machine; the result is multiplied by the
    ratio of its measurement to its forecast.
    """
    is_original_cached = all(
        is_baseline_cached(split_job.recipe, split_job.folder) for split_job in job.by_split
    )
    cost = Cost(run_seconds(job, is_original_cached), peak_bytes(job))
    if past is None:
        return cost
    past_job = replace(job, recipe=past.recipe, settings=job.settings | past_settings(job, past))
    # the run does not record whether the original's quality was cached
    forecasts = [run_seconds(past_job, True), run_seconds(past_job, False)]
    error_factor = min(
        (past.seconds / forecast for forecast in forecasts), key=lambda ratio: max(ratio, 1 / ratio)
    )
    return Cost(
        cost.seconds * clamped_correction(error_factor),
        cost.peak_rss_bytes * clamped_correction(past.peak_rss_bytes / peak_bytes(past_job)),
    )


def past_settings(job: Job, past: PastRun) -> dict[str, Technique]:
    """Settings of the earlier run's technique for the same layers."""
    config = past.recipe.steps[-1]
    return dict.fromkeys(job.settings, config) if search_work(config, 1) == SearchWork() else {}


def clamped_correction(ratio: float) -> float:
    return min(CORRECTION, max(1 / CORRECTION, ratio))


__all__ = ["Cost", "Job", "cost_of"]
