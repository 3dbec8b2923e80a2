"""What training left of a model, on its way into the files that the walk writes."""

from dataclasses import dataclass, field

import torch

from engine.work.stored.weights import Stored


@dataclass(frozen=True)
class Trained:
    weights: dict[str, torch.Tensor] = field(default_factory=dict)  # of layers that were cut: (out, in_) float32, with zeros
    plain: dict[str, torch.Tensor] = field(default_factory=dict)  # norms with their statistics and biases, in the file's number formats
    stored: dict[str, Stored] = field(default_factory=dict)  # of layers whose form was trained too, as they will be written
