"""What would be stored for one weight tensor. A stored weight knows its bytes, and how to become dense again.

Weights are matrices here, output channels first: (out, in_). A convolution's kernel is laid flat, (out, in_ * height * width);
GPT-2's transposed ``Conv1D`` is turned round.
"""

from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch

from engine.work.stored.packing import unpacked

REGISTRY: dict[str, type["Stored"]] = {}


@dataclass(frozen=True)
class Stored:
    """Tensors and settings of one stored weight. Subclasses add fields: tensors are stored, the rest is metadata."""

    kind: ClassVar[str]
    names: ClassVar[dict[str, str]]  # field -> what the size ledger calls it
    shape: tuple[int, int]  # of the dense matrix: out, in_

    def __init_subclass__(cls) -> None:
        REGISTRY[cls.kind] = cls

    def dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The weight as the model sees it.  (out, in_)"""
        raise NotImplementedError

    def tensors(self) -> dict[str, torch.Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}

    def settings(self) -> dict[str, Any]:
        """Everything but the tensors, as JSON types."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"kind": self.kind} | {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items() if not isinstance(v, torch.Tensor)}

    def ledger(self) -> dict[str, int]:
        """Bytes by what they hold."""
        return dict(sum((Counter({self.names[name]: value.nbytes}) for name, value in self.tensors().items()), Counter()))

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in self.tensors().values())

    def to(self, device: torch.device | str) -> Self:
        return replace(self, **{name: value.to(device) for name, value in self.tensors().items()})

    def levels(self) -> torch.Tensor:
        """The values a weight may take where the scale is the median one; empty when any value may be taken."""
        return torch.empty(0)


def restored(settings: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Stored:
    """The stored weight that ``settings()`` and ``tensors()`` came from."""
    plain = {key: value for key, value in settings.items() if key != "kind"}
    return REGISTRY[settings["kind"]](**plain | {"shape": tuple(plain["shape"])} | tensors)


@dataclass(frozen=True)
class Dense(Stored):
    """A weight kept as it was."""

    kind: ClassVar[str] = "dense"
    names: ClassVar[dict[str, str]] = {"weight": "dense weights"}
    weight: torch.Tensor  # (out, in_), in the model's own dtype

    def dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return self.weight.to(dtype)


@dataclass(frozen=True)
class Grid(Stored):
    """Codes on an even grid: weight = scale * (code - zero). One scale for the tensor, a row, or a group inside a row."""

    kind: ClassVar[str] = "grid"
    names: ClassVar[dict[str, str]] = {"codes": "codes", "scales": "scales", "zeros": "zero points"}
    bits: int
    group_size: int  # columns that share a scale; the last group of a row may be shorter
    codes: torch.Tensor  # bytes, see ``packing``; code 0 is the lowest level
    scales: torch.Tensor  # (out, groups), (out, 1) or (1, 1); float16, or float32 where float16 is too coarse
    zeros: torch.Tensor | None = None  # codes of zero, packed in ``bits``, one for each scale; None: 2^(bits - 1)

    def dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        codes = unpacked(self.codes, self.bits, self.shape[0] * self.shape[1]).view(self.shape).to(dtype)
        return codes.sub_(self._spread(self.zero_codes().to(dtype))).mul_(self._spread(self.scales.to(dtype)))

    def zero_codes(self) -> torch.Tensor:
        if self.zeros is None:
            return torch.full((1, 1), 2.0 ** (self.bits - 1), device=self.scales.device)
        return unpacked(self.zeros, self.bits, self.scales.numel()).view(self.scales.shape)

    def _spread(self, values: torch.Tensor) -> torch.Tensor:
        """One value a scale -> one a column.  (out, groups) -> (out, in_)"""
        if values.shape[1] == 1:
            return values
        return values.repeat_interleave(self.group_size, dim=1)[:, : self.shape[1]]

    def levels(self) -> torch.Tensor:
        flat = self.scales.flatten().float()
        middle = int(flat.argsort()[len(flat) // 2])
        zero = self.zero_codes().expand(self.scales.shape).flatten()[middle].float()
        return (torch.arange(2**self.bits, device=flat.device) - zero) * flat[middle]
