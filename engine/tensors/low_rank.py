"""Weights stored as products and sums of smaller ones, which run as such: two matrix products, or a
chain of small convolutions.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from engine.tensors.weights import Dense, Links, Stored

PLAIN = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


def break_even(shape: tuple[int, int]) -> float:
    """The rank at which factors of a matrix take as many parameters as it has."""
    out, in_ = shape
    return out * in_ / (out + in_)


def saves(shape: tuple[int, int], rank: int) -> bool:
    return rank * sum(shape) < shape[0] * shape[1]


@dataclass(frozen=True)
class Whole(Dense):
    """A weight that is stored as it was, since its factors would be no gain."""

    kind: ClassVar[str] = "whole"
    reason: str

    def note(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Factored(Stored):
    """Weight made of dense or further compressed factors."""

    kind: ClassVar[str] = "factored"
    names: ClassVar[dict[str, str]] = {}

    def ledger(self) -> dict[str, int]:
        """Dense parts are factors, not weights."""
        return {
            "factors" if part == "dense weights" else part: size
            for part, size in super().ledger().items()
        }

    @property
    def nparameters(self) -> int:
        return sum(part.shape[0] * part.shape[1] for part in self.parts().values())

    def note(self) -> str:
        return more_than_before(self.nparameters, self.shape)


@dataclass(frozen=True)
class LowRank(Factored):
    """weight = left @ right"""

    kind: ClassVar[str] = "low-rank"
    left: Stored  # (out, rank)
    right: Stored  # (rank, in_)

    @property
    def rank(self) -> int:
        return self.left.shape[1]

    def dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return (self.left.dense() @ self.right.dense()).to(dtype)

    def factors(self, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        return (
            (self.right.dense(dtype), self.left.dense(dtype))
            if saves(self.shape, self.rank)
            else ()
        )

    def links(self, kernel: tuple[int, ...], how: dict[str, Any], dtype: torch.dtype) -> Links:
        """The kernel with fewer outputs, then 1 x 1 to all of them."""
        if not (factors := self.factors(dtype)):
            return ()
        right, left = factors
        return (right.view(-1, *kernel[1:]), how), (left[:, :, None, None], PLAIN)

    def note(self) -> str:
        if saves(self.shape, self.rank):
            return ""
        return (
            f"rank {self.rank} is not below the break-even rank {break_even(self.shape):.1f}, so "
            "its factors take more than the matrix did"
        )


@dataclass(frozen=True)
class TuckerKernel(Factored):
    """Tucker-2 of a convolution's kernel: 1 x 1, the core, 1 x 1."""

    kind: ClassVar[str] = "tucker"
    height: int
    width: int
    outputs: Stored  # (out, rank_out)
    core: Stored  # (rank_out, rank_in * height * width)
    inputs: Stored  # (rank_in, in_)

    @property
    def ranks(self) -> tuple[int, int]:
        return self.outputs.shape[1], self.inputs.shape[0]

    def core_kernel(self, dtype: torch.dtype) -> torch.Tensor:
        return self.core.dense(dtype).view(*self.ranks, self.height, self.width)

    def dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        kernel = torch.einsum(
            "op,pqhw,qi->oihw",
            self.outputs.dense(),
            self.core_kernel(torch.float32),
            self.inputs.dense(),
        )
        return kernel.flatten(1).to(dtype)

    def links(self, kernel: tuple[int, ...], how: dict[str, Any], dtype: torch.dtype) -> Links:
        if self.nparameters >= self.shape[0] * self.shape[1]:
            return ()
        ends = (
            self.inputs.dense(dtype)[:, :, None, None],
            self.outputs.dense(dtype)[:, :, None, None],
        )
        return (ends[0], PLAIN), (self.core_kernel(dtype), how), (ends[1], PLAIN)


@dataclass(frozen=True)
class CPKernel(Factored):
    """CP of a convolution's kernel: 1 x 1, a column for each channel, a row for each channel, 1 x
    1.
    """

    kind: ClassVar[str] = "cp"
    outputs: Stored  # (out, rank)
    inputs: Stored  # (rank, in_)
    down: Stored  # (rank, height)
    across: Stored  # (rank, width)

    @property
    def rank(self) -> int:
        return self.outputs.shape[1]

    def dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        parts = (self.outputs.dense(), self.inputs.dense(), self.down.dense(), self.across.dense())
        return torch.einsum("ok,ki,kh,kw->oihw", *parts).flatten(1).to(dtype)

    def links(self, kernel: tuple[int, ...], how: dict[str, Any], dtype: torch.dtype) -> Links:
        if self.nparameters >= self.shape[0] * self.shape[1]:
            return ()
        down, across = along(how, 0) | {"groups": self.rank}, along(how, 1) | {"groups": self.rank}
        return (
            (self.inputs.dense(dtype)[:, :, None, None], PLAIN),
            (self.down.dense(dtype)[:, None, :, None], down),
            (self.across.dense(dtype)[:, None, None, :], across),
            (self.outputs.dense(dtype)[:, :, None, None], PLAIN),
        )


@dataclass(frozen=True)
class Sum(Stored):
    """weight = base + correction"""

    kind: ClassVar[str] = "sum"
    names: ClassVar[dict[str, str]] = {}
    base: Stored
    correction: Stored

    def dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return (self.base.dense() + self.correction.dense()).to(dtype)

    def received(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.base.received(inputs)


@dataclass(frozen=True)
class Adapted(Sum):
    """Stored weight with a trained adapter."""

    kind: ClassVar[str] = "adapted"

    def ledger(self) -> dict[str, int]:
        """Both told apart."""
        return self.base.ledger() | {"adapters": self.correction.nbytes}

    def levels(self) -> torch.Tensor:
        return torch.empty(0)


def along(how: dict[str, Any], axis: int) -> dict[str, Any]:
    """Convolution options along one axis; along the other, they have no effect."""
    padding = how["padding"]
    kept = {
        name: tuple(how[name][axis] if at == axis else 1 for at in (0, 1))
        for name in ("stride", "dilation")
    }
    return kept | {
        "padding": padding
        if isinstance(padding, str)
        else tuple(padding[axis] if at == axis else 0 for at in (0, 1))
    }


def more_than_before(parameters: int, shape: tuple[int, int]) -> str:
    before = shape[0] * shape[1]
    return (
        f"its factors have {parameters:,} parameters, the kernel had {before:,}"
        if parameters >= before
        else ""
    )
