"""Weights of which many are zero, written so that the zeros take little or nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from engine.tensors.packing import packed, packed_bytes, unpacked
from engine.tensors.weights import Dense, Stored

NARROW = 1 << 15  # columns that an int16 can number
LEFT = "weights left"


@dataclass(frozen=True)
class Bitmask(Stored):
    """A bit for each weight, and the weights left, row by row."""

    kind: ClassVar[str] = "bitmask"
    names: ClassVar[dict[str, str]] = {"mask": "mask", "values": LEFT}
    mask: torch.Tensor  # (out * in_ / 8,) uint8, the first weight in the lowest bit
    values: torch.Tensor  # (left,)

    @classmethod
    def of(cls, weight: torch.Tensor) -> "Bitmask":
        left = weight != 0
        return cls(tuple(weight.shape), packed(left.to(torch.uint8), 1), weight[left])

    def dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        left = unpacked(self.mask, 1, self.shape[0] * self.shape[1]).bool()
        weight = torch.zeros(len(left), dtype=dtype, device=self.values.device)
        weight[left] = self.values.to(dtype)
        return weight.view(self.shape)


@dataclass(frozen=True)
class CSR(Stored):
    """Compressed sparse rows: the column of each weight left, and where each row begins."""

    kind: ClassVar[str] = "csr"
    names: ClassVar[dict[str, str]] = {"starts": "row starts", "columns": "columns", "values": LEFT}
    starts: torch.Tensor  # (out + 1,) int32
    columns: torch.Tensor  # (left,) int16, int32 where there are more
    values: torch.Tensor  # (left,)

    @classmethod
    def of(cls, weight: torch.Tensor) -> "CSR":
        rows, columns = weight.nonzero(as_tuple=True)
        counts = rows.bincount(minlength=len(weight))
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(
            tuple(weight.shape),
            starts.int(),
            columns.to(column_dtype(weight.shape[1])),
            weight[rows, columns],
        )

    def dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        rows = torch.arange(self.shape[0], device=self.values.device).repeat_interleave(
            self.starts.diff().long()
        )
        weight = torch.zeros(self.shape, dtype=dtype, device=self.values.device)
        weight[rows, self.columns.long()] = self.values.to(dtype)
        return weight


@dataclass(frozen=True)
class NOfM(Stored):
    """At most N of every M neighbors in a row, and their places inside the M: as NVIDIA's tensor
    cores read 2:4.
    """

    kind: ClassVar[str] = "n-of-m"
    names: ClassVar[dict[str, str]] = {"places": "places", "values": LEFT}
    of_: int  # M
    places: torch.Tensor  # bytes, see ``packing``; ceil(log2 M) bits each
    values: torch.Tensor  # (out, in_ / M * N)

    @classmethod
    def of(cls, weight: torch.Tensor, kept: int, of_: int) -> "NOfM":
        """``weight``: (out, in_), in_ a multiple of M, with at most N weights left in every M."""
        groups = weight.unflatten(1, (-1, of_))
        places = (
            (groups != 0)
            .int()
            .argsort(dim=-1, descending=True, stable=True)[..., :kept]
            .sort(-1)
            .values
        )
        return cls(
            tuple(weight.shape),
            of_,
            packed(places.to(torch.uint8), place_bits(of_)),
            groups.gather(-1, places).flatten(1),
        )

    def dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        out, in_ = self.shape
        places = (
            unpacked(self.places, place_bits(self.of_), self.values.numel())
            .long()
            .view(out, in_ // self.of_, -1)
        )
        groups = torch.zeros(out, in_ // self.of_, self.of_, dtype=dtype, device=self.values.device)
        return groups.scatter_(-1, places, self.values.to(dtype).view_as(places)).flatten(1)


def place_bits(of_: int) -> int:
    return (of_ - 1).bit_length()


def column_dtype(in_: int) -> torch.dtype:
    return torch.int16 if in_ <= NARROW else torch.int32


def sizes(
    shape: tuple[int, int], left: int, itemsize: int, pattern: tuple[int, int] | None = None
) -> dict[str, int]:
    """Bytes that each way of storing takes for this number of remaining weights; N of M only where
    there is
    such a pattern.
    """
    out, in_ = shape
    bytes_of = {
        "dense": out * in_ * itemsize,
        "bitmask": packed_bytes(out * in_, 1) + left * itemsize,
        "csr": 4 * (out + 1) + left * (itemsize + column_dtype(in_).itemsize),
    }
    if pattern and in_ % pattern[1] == 0:
        count = out * in_ // pattern[1] * pattern[0]
        bytes_of["n-of-m"] = packed_bytes(count * place_bits(pattern[1]), 1) + count * itemsize
    return bytes_of


def sparse(weight: torch.Tensor, way: str, pattern: tuple[int, int] | None = None) -> Stored:
    """Stored in one of the ways of ``sizes``, or the smallest of them.  weight: (out, in_) in the
    format that is to be kept
    """
    ways = sizes(tuple(weight.shape), int(weight.count_nonzero()), weight.itemsize, pattern)
    makers: dict[str, Callable[[], Stored]] = {
        "dense": lambda: Dense(tuple(weight.shape), weight),
        "bitmask": lambda: Bitmask.of(weight),
        "csr": lambda: CSR.of(weight),
        "n-of-m": lambda: NOfM.of(weight, *pattern),
    }
    return makers[min(ways, key=ways.get) if way == "smallest" else way]()


def sparse_blueprint(
    shape: tuple[int, int],
    left: int,
    dtype: torch.dtype,
    way: str,
    pattern: tuple[int, int] | None = None,
) -> Stored:
    """The same before it is done, for this number of remaining weights; its tensors have no values
    (device
    meta).
    """
    ways, (out, in_) = sizes(shape, left, dtype.itemsize, pattern), shape
    sketch = partial(torch.empty, device="meta")
    match min(ways, key=ways.get) if way == "smallest" else way:
        case "bitmask":
            return Bitmask(
                shape,
                sketch(packed_bytes(out * in_, 1), dtype=torch.uint8),
                sketch(left, dtype=dtype),
            )
        case "csr":
            return CSR(
                shape,
                sketch(out + 1, dtype=torch.int32),
                sketch(left, dtype=column_dtype(in_)),
                sketch(left, dtype=dtype),
            )
        case "n-of-m":
            count = out * in_ // pattern[1] * pattern[0]
            places = sketch(packed_bytes(count * place_bits(pattern[1]), 1), dtype=torch.uint8)
            return NOfM(shape, pattern[1], places, sketch(out, count // out, dtype=dtype))
        case _:
            return Dense(shape, sketch(out, in_, dtype=dtype))
