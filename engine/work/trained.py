"""What training left of a model, on its way into the files that the walk writes."""

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Trained:
    weights: dict[str, torch.Tensor]  # of each layer that a step may touch: (out, in_) float32, with zeros where it was cut
    plain: dict[str, torch.Tensor] = field(default_factory=dict)  # norms with their statistics and biases, in the file's number formats
