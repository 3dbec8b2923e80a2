"""Weights with separately stored columns: those of the largest inputs."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from engine.tensors.weights import StoredWeight


@dataclass(frozen=True)
class WithOutlierColumns(StoredWeight):
    """A stored weight with some columns in 16 bits, which replace its own (AWQ, arXiv:2306.00978,
    table 1).
    """

    kind: ClassVar[str] = "with-columns"
    names: ClassVar[dict[str, str]] = {"columns": "outlier columns", "values": "outlier columns"}
    weight: StoredWeight
    columns: torch.Tensor  # (kept,) int32, ascending
    values: torch.Tensor  # (out, kept) float16, or bfloat16 if the range of float16 is too small

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        weight = self.weight.to_dense(torch.float32)
        weight[:, self.columns.long()] = self.values.float()
        return weight.to(dtype)

    def levels(self) -> torch.Tensor:
        return self.weight.levels()

    def level_counts(self) -> torch.Tensor:
        return self.weight.level_counts()


@dataclass(frozen=True)
class MixedInt8(WithOutlierColumns):
    """LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339): INT8 weights and inputs with a scale per
    token, except for outliers, whose products are computed in 16 bits. Outliers in columns that are
    not stored separately are not rounded either, as in bitsandbytes for one token.
    """

    kind: ClassVar[str] = "mixed-int8"
    threshold: float = 6.0
    area: int = 1  # columns of one input channel: a convolution's kernel

    def quantized_inputs(self, inputs: torch.Tensor) -> torch.Tensor:
        is_image = inputs.ndim == 4
        values = (inputs.movedim(1, -1) if is_image else inputs).float()
        is_outlier = values.abs() >= self.threshold
        is_outlier[..., (self.columns.long() // self.area).unique()] = True
        regular = values.masked_fill(is_outlier, 0)
        axes = tuple(range(1, regular.ndim)) if is_image else (-1,)
        scale = (regular.abs().amax(axes, keepdim=True) / 127).clamp_min(1e-30)
        rounded = torch.where(is_outlier, values, regular.div(scale).round_().mul_(scale)).to(
            inputs.dtype
        )
        return rounded.movedim(-1, 1) if is_image else rounded


@dataclass(frozen=True)
class ScaledColumns(StoredWeight):
    """A stored weight, some columns of which were multiplied by one factor before."""

    kind: ClassVar[str] = "scaled-columns"
    names: ClassVar[dict[str, str]] = {"columns": "scaled columns"}
    weight: StoredWeight
    columns: torch.Tensor  # (scaled,) int32, ascending
    factor: float

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        weight = self.weight.to_dense(torch.float32)
        weight[:, self.columns.long()] /= self.factor
        return weight.to(dtype)


def outlier_fields(weight: torch.Tensor, columns: torch.Tensor) -> dict[str, torch.Tensor]:
    """Fields of the separately stored columns. weight: (out, in_), columns: (kept,)"""
    values = weight[:, columns]
    half = values.half()
    return {
        "columns": columns.to(torch.int32),
        "values": half if half.isfinite().all() else values.bfloat16(),
    }
