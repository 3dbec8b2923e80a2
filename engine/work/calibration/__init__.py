"""What flows through a model: calibration activations, block by block, and what layers see of them."""

from engine.work.calibration.folding import Fold, folds_in
from engine.work.calibration.seen import Seen
from engine.work.calibration.stream import Stream

__all__ = ["Fold", "Seen", "Stream", "folds_in"]
