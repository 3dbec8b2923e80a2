"""Calibration activations, block by block, and the statistics collected from them."""

from engine.calibration.activation_stats import InputStats
from engine.calibration.folding import Fold, scale_folds
from engine.calibration.stream import CalibrationStream

__all__ = ["CalibrationStream", "Fold", "InputStats", "scale_folds"]
