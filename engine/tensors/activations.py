"""Weights of layers that quantize their inputs."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from engine.tensors.weights import StoredWeight


@dataclass(frozen=True)
class WithQuantizedInputs(StoredWeight):
    """A stored weight with the quantization of its layer's inputs: x = scale * (code - zero). It is
    simulated in floating point, with the same result as integer arithmetic.
    """

    kind: ClassVar[str] = "with-activations"
    names: ClassVar[dict[str, str]] = {"scale": "activation range", "zero": "activation range"}
    weight: StoredWeight
    bits: int
    scheme: Literal["symmetric", "asymmetric"]
    per: Literal["token", "tensor"]
    scale: torch.Tensor | None = None  # (1,) float32; None: computed for each input
    zero: torch.Tensor | None = None  # (1,) float32, an integer

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return self.weight.to_dense(dtype)

    def levels(self) -> torch.Tensor:
        return self.weight.levels()

    def level_counts(self) -> torch.Tensor:
        return self.weight.level_counts()

    def quantized_inputs(self, inputs: torch.Tensor) -> torch.Tensor:
        values = inputs.float()
        scale, zero = (
            (self.scale, self.zero) if self.scale is not None else self.dynamic_qparams(values)
        )
        lowest, highest = code_range(self.bits, self.scheme)
        return (
            values.div(scale)
            .add_(zero)
            .round_()
            .clamp_(lowest, highest)
            .sub_(zero)
            .mul_(scale)
            .to(inputs.dtype)
        )

    def dynamic_qparams(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Range for each token (the last axis; for images, each image), or for each example."""
        is_image = values.ndim == 4
        axes = tuple(range(1, values.ndim)) if is_image or self.per == "tensor" else (-1,)
        return qparams(
            values.amin(axes, keepdim=True), values.amax(axes, keepdim=True), self.bits, self.scheme
        )


def code_range(bits: int, scheme: str) -> tuple[int, int]:
    """Symmetric: -(2^(b-1) - 1) ... 2^(b-1) - 1, as in integer kernels. Asymmetric: 0 ...
    2^b - 1.
    """
    return (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) if scheme == "symmetric" else (0, 2**bits - 1)


def qparams(
    low: torch.Tensor, high: torch.Tensor, bits: int, scheme: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero code of a range, which is extended to contain zero."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    lowest, highest = code_range(bits, scheme)
    width = (
        torch.maximum(-low, high) / highest
        if scheme == "symmetric"
        else (high - low) / (highest - lowest)
    )
    scale = width.clamp_min(1e-30)
    zero = (
        torch.zeros_like(scale)
        if scheme == "symmetric"
        else (-low / scale).round().clamp(lowest, highest)
    )
    return scale, zero
