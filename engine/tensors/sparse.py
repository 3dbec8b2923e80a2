"""Storage of weights with many zeros: bitmask, CSR and N:M."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from engine.tensors.packing import pack_bits, packed_size_bytes, unpack_bits
from engine.tensors.weights import DenseWeight, StoredWeight

MAX_INT16_COLUMNS = 1 << 15  # number of columns that int16 can index
REMAINING = "weights left"


@dataclass(frozen=True)
class Bitmask(StoredWeight):
    """One bit per weight, and the remaining weights, row by row."""

    kind: ClassVar[str] = "bitmask"
    names: ClassVar[dict[str, str]] = {"mask": "mask", "values": REMAINING}
    mask: torch.Tensor  # (out * in_ / 8,) uint8, the first weight in the lowest bit
    values: torch.Tensor  # (left,)

    @classmethod
    def of(cls, weight: torch.Tensor) -> "Bitmask":
        left = weight != 0
        return cls(tuple(weight.shape), pack_bits(left.to(torch.uint8), 1), weight[left])

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        left = unpack_bits(self.mask, 1, self.shape[0] * self.shape[1]).bool()
        weight = torch.zeros(len(left), dtype=dtype, device=self.values.device)
        weight[left] = self.values.to(dtype)
        return weight.view(self.shape)


@dataclass(frozen=True)
class CSR(StoredWeight):
    """Compressed sparse rows: the column of each remaining weight, and the start of each row."""

    kind: ClassVar[str] = "csr"
    names: ClassVar[dict[str, str]] = {
        "starts": "row starts",
        "columns": "columns",
        "values": REMAINING,
    }
    starts: torch.Tensor  # (out + 1,) int32
    columns: torch.Tensor  # (left,) int16, or int32 for more columns
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

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        rows = torch.arange(self.shape[0], device=self.values.device).repeat_interleave(
            self.starts.diff().long()
        )
        weight = torch.zeros(self.shape, dtype=dtype, device=self.values.device)
        weight[rows, self.columns.long()] = self.values.to(dtype)
        return weight


@dataclass(frozen=True)
class NOfM(StoredWeight):
    """At most N of every M neighbors in a row, and their positions inside the M, as NVIDIA's tensor
    cores read 2:4.
    """

    kind: ClassVar[str] = "n-of-m"
    names: ClassVar[dict[str, str]] = {"places": "places", "values": REMAINING}
    of_: int  # M
    places: torch.Tensor  # bytes, see ``packing``; ceil(log2 M) bits each
    values: torch.Tensor  # (out, in_ / M * N)

    @classmethod
    def of(cls, weight: torch.Tensor, kept: int, of_: int) -> "NOfM":
        """``weight``: (out, in_), in_ a multiple of M, with at most N nonzero weights in
        every M.
        """
        groups = weight.unflatten(1, (-1, of_))
        positions = (
            (groups != 0)
            .int()
            .argsort(dim=-1, descending=True, stable=True)[..., :kept]
            .sort(-1)
            .values
        )
        return cls(
            tuple(weight.shape),
            of_,
            pack_bits(positions.to(torch.uint8), position_bits(of_)),
            groups.gather(-1, positions).flatten(1),
        )

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        out, in_ = self.shape
        positions = (
            unpack_bits(self.places, position_bits(self.of_), self.values.numel())
            .long()
            .view(out, in_ // self.of_, -1)
        )
        groups = torch.zeros(out, in_ // self.of_, self.of_, dtype=dtype, device=self.values.device)
        return groups.scatter_(-1, positions, self.values.to(dtype).view_as(positions)).flatten(1)


def position_bits(of_: int) -> int:
    return (of_ - 1).bit_length()


def column_dtype(in_: int) -> torch.dtype:
    return torch.int16 if in_ <= MAX_INT16_COLUMNS else torch.int32


def storage_sizes_bytes(
    shape: tuple[int, int],
    nonzero_count: int,
    itemsize: int,
    pattern: tuple[int, int] | None = None,
) -> dict[str, int]:
    """Bytes of each storage format for this number of remaining weights; N of M only if there is
    such a pattern.
    """
    out, in_ = shape
    bytes_of = {
        "dense": out * in_ * itemsize,
        "bitmask": packed_size_bytes(out * in_, 1) + nonzero_count * itemsize,
        "csr": 4 * (out + 1) + nonzero_count * (itemsize + column_dtype(in_).itemsize),
    }
    if pattern and in_ % pattern[1] == 0:
        count = out * in_ // pattern[1] * pattern[0]
        bytes_of["n-of-m"] = (
            packed_size_bytes(count * position_bits(pattern[1]), 1) + count * itemsize
        )
    return bytes_of


def sparse_weight(
    weight: torch.Tensor, storage: str, pattern: tuple[int, int] | None = None
) -> StoredWeight:
    """Weight in one of the formats of ``storage_sizes_bytes``, by default the smallest. weight:
    (out, in_) in the dtype to keep
    """
    sizes = storage_sizes_bytes(
        tuple(weight.shape), int(weight.count_nonzero()), weight.itemsize, pattern
    )
    makers: dict[str, Callable[[], StoredWeight]] = {
        "dense": lambda: DenseWeight(tuple(weight.shape), weight),
        "bitmask": lambda: Bitmask.of(weight),
        "csr": lambda: CSR.of(weight),
        "n-of-m": lambda: NOfM.of(weight, *pattern),
    }
    return makers[min(sizes, key=sizes.get) if storage == "smallest" else storage]()


def sparse_storage_plan(
    shape: tuple[int, int],
    nonzero_count: int,
    dtype: torch.dtype,
    storage: str,
    pattern: tuple[int, int] | None = None,
) -> StoredWeight:
    """Return the storage plan for ``nonzero_count`` remaining weights; its tensors are on the meta
    device.
    """
    sizes, (out, in_) = storage_sizes_bytes(shape, nonzero_count, dtype.itemsize, pattern), shape
    sketch = partial(torch.empty, device="meta")
    match min(sizes, key=sizes.get) if storage == "smallest" else storage:
        case "bitmask":
            return Bitmask(
                shape,
                sketch(packed_size_bytes(out * in_, 1), dtype=torch.uint8),
                sketch(nonzero_count, dtype=dtype),
            )
        case "csr":
            return CSR(
                shape,
                sketch(out + 1, dtype=torch.int32),
                sketch(nonzero_count, dtype=column_dtype(in_)),
                sketch(nonzero_count, dtype=dtype),
            )
        case "n-of-m":
            count = out * in_ // pattern[1] * pattern[0]
            positions = sketch(
                packed_size_bytes(count * position_bits(pattern[1]), 1), dtype=torch.uint8
            )
            return NOfM(shape, pattern[1], positions, sketch(out, count // out, dtype=dtype))
        case _:
            return DenseWeight(shape, sketch(out, in_, dtype=dtype))
