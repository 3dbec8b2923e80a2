"""Weights after training, before they are written."""

from dataclasses import dataclass, field

import torch

from engine.tensors.weights import StoredWeight


@dataclass(frozen=True)
class TrainedWeights:
    layers: dict[str, StoredWeight]  # stored weight of each layer that a step may change
    # norms with their statistics and biases, in the dtypes of the file
    plain: dict[str, torch.Tensor] = field(default_factory=dict)
