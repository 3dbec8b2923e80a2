"""Length and learning rate of a training."""

import math
from dataclasses import dataclass

WARMUP = 0.05  # share of the steps with a rising learning rate


@dataclass(frozen=True)
class TrainingConfig:
    steps: int
    rate: float  # peak learning rate
    batch: int
    seed: int = 0
    weight_decay: float = 0.01  # weight decay of matrices
    clip: float = 1.0  # maximum norm of all gradients
    # micro-batches per step, whose gradients are accumulated
    parts: int = 1
    # 8-bit optimizer states, which move to main memory if the GPU's memory is full
    # (QLoRA)
    paged: bool = False
    # products in bfloat16 while weights and gradients stay float32 (mixed precision)
    half: bool = False

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0: linear warm-up, then cosine decay to zero."""
        rise = (step + 1) / max(1.0, WARMUP * self.steps)
        return self.rate * min(1.0, rise) * (1 + math.cos(math.pi * step / self.steps)) / 2

    def seed_at(self, step: int) -> int:
        """Seed of each step, so that a resumed run draws the same numbers."""
        return (self.seed * 1_000_003 + step) % 2**63

    @property
    def updates_weights(self) -> bool:
        return self.rate > 0
