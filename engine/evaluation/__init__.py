"""Measurement of quality: tasks with their data and protocols, and calibration inputs."""

from engine.evaluation.baseline import measured_once
from engine.evaluation.evaluation import calibration_batches, calibration_data, evaluate
from engine.evaluation.measured import Measured

__all__ = ["Measured", "calibration_batches", "calibration_data", "evaluate", "measured_once"]
