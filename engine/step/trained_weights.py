"""Weights after training, before they are written."""

from dataclasses import dataclass, field

import torch

from engine.tensors.weights import StoredWeight


@dataclass(frozen=True)
class TrainedWeights:
    layers: dict[str, StoredWeight]  # each layer that a step may touch, as it will be stored
    # norms with their statistics and biases, in the file's number formats
    plain: dict[str, torch.Tensor] = field(default_factory=dict)
