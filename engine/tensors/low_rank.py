"""Weights stored as products and sums of smaller ones, and computed as such: two matrix products,
or a chain of small convolutions.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from engine.tensors.weights import ConvChain, DenseWeight, StoredWeight

DEFAULT_CONV_OPTIONS = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


def break_even_rank(shape: tuple[int, int]) -> float:
    """The rank at which the factors of a matrix have as many parameters as it."""
    out, in_ = shape
    return out * in_ / (out + in_)


def saves_parameters(shape: tuple[int, int], rank: int) -> bool:
    return rank * sum(shape) < shape[0] * shape[1]


@dataclass(frozen=True)
class UnfactoredWeight(DenseWeight):
    """A dense weight for which factors would be no gain."""

    kind: ClassVar[str] = "whole"
    reason: str

    def note(self) -> str:
        return self.reason


@dataclass(frozen=True)
class FactoredWeight(StoredWeight):
    """Weight made of dense or further compressed factors."""

    kind: ClassVar[str] = "factored"
    names: ClassVar[dict[str, str]] = {}

    def byte_breakdown(self) -> dict[str, int]:
        """Dense parts are factors, not weights."""
        return {
            "factors" if part == "dense weights" else part: size
            for part, size in super().byte_breakdown().items()
        }

    @property
    def nparameters(self) -> int:
        return sum(part.shape[0] * part.shape[1] for part in self.parts().values())

    def note(self) -> str:
        return growth_note(self.nparameters, self.shape)


@dataclass(frozen=True)
class LowRankWeight(FactoredWeight):
    """weight = left @ right"""

    kind: ClassVar[str] = "low-rank"
    left: StoredWeight  # (out, rank)
    right: StoredWeight  # (rank, in_)

    @property
    def rank(self) -> int:
        return self.left.shape[1]

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return (self.left.to_dense() @ self.right.to_dense()).to(dtype)

    def factors(self, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        return (
            (self.right.to_dense(dtype), self.left.to_dense(dtype))
            if saves_parameters(self.shape, self.rank)
            else ()
        )

    def conv_chain(
        self, kernel: tuple[int, ...], config: dict[str, Any], dtype: torch.dtype
    ) -> ConvChain:
        """The kernel with fewer outputs, then 1 x 1 to all of them."""
        if not (factors := self.factors(dtype)):
            return ()
        right, left = factors
        return (right.view(-1, *kernel[1:]), config), (left[:, :, None, None], DEFAULT_CONV_OPTIONS)

    def note(self) -> str:
        if saves_parameters(self.shape, self.rank):
            return ""
        return (
            f"rank {self.rank} is not below the break-even rank {break_even_rank(self.shape):.1f}, "
            "so its factors take more than the matrix did"
        )


@dataclass(frozen=True)
class TuckerKernel(FactoredWeight):
    """Tucker-2 of a convolution's kernel: 1 x 1, the core, 1 x 1."""

    kind: ClassVar[str] = "tucker"
    height: int
    width: int
    outputs: StoredWeight  # (out, rank_out)
    core: StoredWeight  # (rank_out, rank_in * height * width)
    inputs: StoredWeight  # (rank_in, in_)

    @property
    def ranks(self) -> tuple[int, int]:
        return self.outputs.shape[1], self.inputs.shape[0]

    def core_kernel(self, dtype: torch.dtype) -> torch.Tensor:
        return self.core.to_dense(dtype).view(*self.ranks, self.height, self.width)

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        kernel = torch.einsum(
            "op,pqhw,qi->oihw",
            self.outputs.to_dense(),
            self.core_kernel(torch.float32),
            self.inputs.to_dense(),
        )
        return kernel.flatten(1).to(dtype)

    def conv_chain(
        self, kernel: tuple[int, ...], config: dict[str, Any], dtype: torch.dtype
    ) -> ConvChain:
        if self.nparameters >= self.shape[0] * self.shape[1]:
            return ()
        ends = (
            self.inputs.to_dense(dtype)[:, :, None, None],
            self.outputs.to_dense(dtype)[:, :, None, None],
        )
        return (
            (ends[0], DEFAULT_CONV_OPTIONS),
            (self.core_kernel(dtype), config),
            (ends[1], DEFAULT_CONV_OPTIONS),
        )


@dataclass(frozen=True)
class CPKernel(FactoredWeight):
    """CP of a convolution's kernel: 1 x 1, a column for each channel, a row for each channel, 1 x
    1.
    """

    kind: ClassVar[str] = "cp"
    outputs: StoredWeight  # (out, rank)
    inputs: StoredWeight  # (rank, in_)
    down: StoredWeight  # (rank, height)
    across: StoredWeight  # (rank, width)

    @property
    def rank(self) -> int:
        return self.outputs.shape[1]

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        parts = (
            self.outputs.to_dense(),
            self.inputs.to_dense(),
            self.down.to_dense(),
            self.across.to_dense(),
        )
        return torch.einsum("ok,ki,kh,kw->oihw", *parts).flatten(1).to(dtype)

    def conv_chain(
        self, kernel: tuple[int, ...], config: dict[str, Any], dtype: torch.dtype
    ) -> ConvChain:
        if self.nparameters >= self.shape[0] * self.shape[1]:
            return ()
        down, across = (
            conv_options_along(config, 0) | {"groups": self.rank},
            conv_options_along(config, 1) | {"groups": self.rank},
        )
        return (
            (self.inputs.to_dense(dtype)[:, :, None, None], DEFAULT_CONV_OPTIONS),
            (self.down.to_dense(dtype)[:, None, :, None], down),
            (self.across.to_dense(dtype)[:, None, None, :], across),
            (self.outputs.to_dense(dtype)[:, :, None, None], DEFAULT_CONV_OPTIONS),
        )


@dataclass(frozen=True)
class CorrectedWeight(StoredWeight):
    """weight = base + correction"""

    kind: ClassVar[str] = "sum"
    names: ClassVar[dict[str, str]] = {}
    base: StoredWeight
    correction: StoredWeight

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return (self.base.to_dense() + self.correction.to_dense()).to(dtype)

    def quantized_inputs(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.base.quantized_inputs(inputs)


@dataclass(frozen=True)
class AdaptedWeight(CorrectedWeight):
    """Stored weight with a trained adapter."""

    kind: ClassVar[str] = "adapted"

    def byte_breakdown(self) -> dict[str, int]:
        """Note on the stored weight and on the adapter."""
        return self.base.byte_breakdown() | {"adapters": self.correction.nbytes}

    def levels(self) -> torch.Tensor:
        return torch.empty(0)


def conv_options_along(config: dict[str, Any], axis: int) -> dict[str, Any]:
    """Convolution options along one axis; along the other, they have no effect."""
    padding = config["padding"]
    kept = {
        name: tuple(config[name][axis] if at == axis else 1 for at in (0, 1))
        for name in ("stride", "dilation")
    }
    return kept | {
        "padding": padding
        if isinstance(padding, str)
        else tuple(padding[axis] if at == axis else 0 for at in (0, 1))
    }


def growth_note(parameters: int, shape: tuple[int, int]) -> str:
    before = shape[0] * shape[1]
    return (
        f"its factors have {parameters:,} parameters, the kernel had {before:,}"
        if parameters >= before
        else ""
    )
