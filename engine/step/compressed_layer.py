"""One layer as a step would store it, for live questions and explanations."""

from dataclasses import dataclass

import torch

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.config.technique import Technique
from engine.models.layers import Layer
from engine.step.pruning_plan import PruningPlan
from engine.tensors.weights import StoredWeight

LIVE_SAMPLES = 8  # calibration examples that a live question reads


@dataclass(frozen=True)
class CompressedLayer:
    """One layer as a step would store it."""

    step: Technique
    config: Technique  # setting of this layer
    part: Layer  # its first rows, if it is very large
    weight: torch.Tensor  # (out, in_) float32
    stats: InputStats | GradientStats | None
    stored: StoredWeight
    scales: torch.Tensor | float  # factors of its columns before storing, (in_,)
    pruning_plan: PruningPlan | None = (
        None  # what remains of the whole model, if structures are removed
    )
