"""Weights as 8-bit floating-point numbers."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from engine.tensors.packing import code_counts
from engine.tensors.weights import StoredWeight


@dataclass(frozen=True)
class Float8(StoredWeight):
    """E4M3 or E5M2 numbers, one byte each, with a scale for all, one a row, or none: weight = scale
    * number.
    """

    kind: ClassVar[str] = "float8"
    names: ClassVar[dict[str, str]] = {"numbers": "codes", "scales": "scales"}
    numbers: torch.Tensor  # (out, in_) float8_e4m3fn or float8_e5m2
    scales: torch.Tensor | None = None  # (1, 1) or (out, 1) float32

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        numbers = self.numbers.float()
        return (numbers if self.scales is None else numbers.mul_(self.scales)).to(dtype)

    def levels(self) -> torch.Tensor:
        numbers = self.finite_numbers().sort().values
        return numbers if self.scales is None else numbers * self.scales.median()

    def level_counts(self) -> torch.Tensor:
        counts = code_counts(self.numbers.view(torch.uint8), 256)
        return counts[self.byte_values().isfinite()][self.finite_numbers().argsort(stable=True)]

    def byte_values(self) -> torch.Tensor:
        """Value of each of the 256 bytes, float32."""
        return (
            torch.arange(256, dtype=torch.uint8, device=self.numbers.device)
            .view(self.numbers.dtype)
            .float()
        )

    def finite_numbers(self) -> torch.Tensor:
        return self.byte_values()[self.byte_values().isfinite()]
