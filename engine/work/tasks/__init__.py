"""How quality is measured: the data behind the tasks, their protocols, and calibration inputs."""

from engine.work.tasks.baseline import measured_once
from engine.work.tasks.evaluation import calibration_batches, evaluate
from engine.work.tasks.measured import Measured

__all__ = ["Measured", "calibration_batches", "evaluate", "measured_once"]
