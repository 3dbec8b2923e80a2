"""Calibration activations, block by block, and the statistics that layers collect of them."""

from engine.calibration.activation_stats import Seen
from engine.calibration.folding import Fold, folds_in
from engine.calibration.stream import Stream

__all__ = ["Fold", "Seen", "Stream", "folds_in"]
