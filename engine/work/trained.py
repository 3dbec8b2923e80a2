"""What training left of a model, on its way into the files that the walk writes."""

from dataclasses import dataclass, field

import torch

from engine.work.stored.weights import Stored


@dataclass(frozen=True)
class Trained:
    layers: dict[str, Stored]  # each layer that a step may touch, as it will be stored
    plain: dict[str, torch.Tensor] = field(default_factory=dict)  # norms with their statistics and biases, in the file's number formats
