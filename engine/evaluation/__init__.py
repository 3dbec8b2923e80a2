"""Quality evaluation: tasks with their data and protocols, and calibration inputs."""

from engine.evaluation.baseline import cached_baseline
from engine.evaluation.evaluation import calibration_batches, calibration_data, evaluate
from engine.evaluation.measured import EvaluationResult

__all__ = [
    "EvaluationResult",
    "cached_baseline",
    "calibration_batches",
    "calibration_data",
    "evaluate",
]
