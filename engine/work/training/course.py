"""How long and how fast is trained."""

import math
from dataclasses import dataclass

WARMUP = 0.05  # share of the steps in which the rate rises


@dataclass(frozen=True)
class Course:
    steps: int
    rate: float  # at its highest
    batch: int
    seed: int = 0
    decay: float = 0.01  # of matrices, AdamW's
    clip: float = 1.0  # largest norm of all slopes together
    parts: int = 1  # in which a step's examples are gone through, their slopes added up (accumulation)
    paged: bool = False  # what the optimizer remembers, in 8 bits, moves to main memory where the GPU's does not suffice (QLoRA)
    half: bool = False  # products in bfloat16 while weights and slopes stay float32 (mixed precision)

    def rate_at(self, step: int) -> float:
        """Of a step, counted from 0: a linear rise, then half a cosine down to nothing."""
        rise = (step + 1) / max(1.0, WARMUP * self.steps)
        return self.rate * min(1.0, rise) * (1 + math.cos(math.pi * step / self.steps)) / 2

    def seed_at(self, step: int) -> int:
        """Each step draws from a seed of its own, so that a run which goes on from there draws what it would have drawn."""
        return (self.seed * 1_000_003 + step) % 2**63

    @property
    def learns(self) -> bool:
        return self.rate > 0
