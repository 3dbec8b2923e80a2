"""Quantized weights of which many were zero before: they stay zero, and need not be stored."""

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import ClassVar

import torch

from engine.tensors.blockwise import FourBit, RowInt8
from engine.tensors.codebook import Shared
from engine.tensors.floats import Float8
from engine.tensors.lookup_table import Tabled, packed_codes
from engine.tensors.low_rank import Adapted
from engine.tensors.packing import packed, packed_bytes, unpacked
from engine.tensors.sparse import sparse, sparse_blueprint
from engine.tensors.weights import Dense, Grid, Stored, Turned


@dataclass(frozen=True)
class Masked(Stored):
    """A stored weight, and a bit for each place that tells whether it is zero after all."""

    kind: ClassVar[str] = "masked"
    names: ClassVar[dict[str, str]] = {"mask": "mask"}
    weight: Stored
    mask: torch.Tensor  # (out * in_ / 8,) uint8, 1 where a weight is left

    def dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return (
            self.whole()
            .dense(torch.float32)
            .masked_fill_(~self.left().view(self.shape), 0)
            .to(dtype)
        )

    def left(self) -> torch.Tensor:
        """(out * in_,) bool"""
        return unpacked(self.mask, 1, self.shape[0] * self.shape[1]).bool()

    def whole(self) -> Stored:
        """The weight with something at every place."""
        return self.weight

    def received(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.weight.received(inputs)

    def levels(self) -> torch.Tensor:
        return self.weight.levels()

    def occupancy(self) -> torch.Tensor:
        return self.weight.occupancy()


@dataclass(frozen=True)
class Sieved(Masked):
    """The codes of the weights left alone; scales and all else are as in a weight that has a code
    for each place.
    """

    kind: ClassVar[str] = "sieved"
    names: ClassVar[dict[str, str]] = {"mask": "mask", "codes": "codes"}
    bits: int  # of a code
    # bytes, see ``packing``; of the weights left, row by row. ``weight`` holds none
    codes: torch.Tensor

    @classmethod
    def of(cls, stored: Stored, left: torch.Tensor) -> "Sieved":
        """``left``: (out * in_,) bool"""
        codes, bits = codes_of(stored), code_bits(stored)
        return cls(
            stored.shape,
            with_codes(stored, codes[:0]),
            packed(left.to(torch.uint8), 1),
            bits,
            packed(codes[left], bits),
        )

    def whole(self) -> Stored:
        left = self.left()
        codes = torch.zeros(len(left), dtype=torch.uint8, device=left.device)
        codes[left] = self.kept_codes()
        return with_codes(self.weight, codes)

    def kept_codes(self) -> torch.Tensor:
        return unpacked(self.codes, self.bits, int(self.left().sum()))

    def occupancy(self) -> torch.Tensor:
        codes = self.kept_codes()
        return replace(with_codes(self.weight, codes), shape=(1, len(codes))).occupancy()


def keeping_zeros(stored: Stored, zeros: torch.Tensor) -> Stored:
    """The smallest way to store it with zeros where the weight was zero.  zeros: (out, in_) bool"""
    if isinstance(stored, Adapted):  # the adapter trained with it is dense
        return replace(stored, base=keeping_zeros(stored.base, zeros))
    inner = stored.parts().get("weight") or stored.parts().get("columns")
    # it goes for the weight inside; columns stored apart, factors and activation ranges are as they
    # are
    if inner is not None:
        place = "columns" if isinstance(stored, Turned) else "weight"
        stored = replace(
            stored,
            **{place: keeping_zeros(inner, zeros.T if isinstance(stored, Turned) else zeros)},
        )
        return stored if not stored.dense()[zeros].any() else masked(stored, zeros)
    if isinstance(stored, Dense):
        return sparse(stored.weight.masked_fill(zeros, 0), "smallest")
    ways = [stored] if not stored.dense()[zeros].any() else [masked(stored, zeros)]
    ways += [Sieved.of(stored, ~zeros.flatten())] if has_codes(stored) else []
    return min(ways, key=lambda way: way.nbytes)


def left_in(stored: Stored) -> torch.Tensor:
    """Mask of the weights that no earlier step has removed, as far as known, (out, in_) bool."""
    return stored.left().view(stored.shape) if isinstance(stored, Masked) else stored.dense() != 0


def masked(stored: Stored, zeros: torch.Tensor) -> Masked:
    return Masked(stored.shape, stored, packed((~zeros).to(torch.uint8), 1))


def has_codes(stored: Stored) -> bool:
    """Return True if there is a code for each weight, in order."""
    return (
        type(stored) in codes_of.registry
        and getattr(stored, "order", None) is None
        and getattr(stored, "lengths", None) is None
    )


@singledispatch
def codes_of(stored: Stored) -> torch.Tensor:
    """The code of each weight, (out * in_,) uint8."""
    raise TypeError(f"{type(stored).__name__} has no codes")


@codes_of.register
def codes_of_grid(stored: Grid) -> torch.Tensor:
    return stored.code_matrix().flatten()


@codes_of.register
def codes_of_tabled(stored: Tabled) -> torch.Tensor:
    return stored.code_row()


@codes_of.register
def codes_of_shared(stored: Shared) -> torch.Tensor:
    return stored.indices()


@codes_of.register
def codes_of_four_bit(stored: FourBit) -> torch.Tensor:
    halves = torch.stack([stored.codes >> 4, stored.codes & 15], 1).flatten()
    return halves[: stored.shape[0] * stored.shape[1]]


@codes_of.register
def codes_of_row_int8(stored: RowInt8) -> torch.Tensor:
    return stored.codes.view(torch.uint8).flatten()


@codes_of.register
def codes_of_float8(stored: Float8) -> torch.Tensor:
    return stored.numbers.view(torch.uint8).flatten()


@singledispatch
def with_codes(stored: Stored, codes: torch.Tensor) -> Stored:
    """The same with these codes, which may be none.  codes: (count,) uint8"""
    return replace(stored, codes=packed(codes, stored.bits))


@with_codes.register
def with_codes_tabled(stored: Tabled, codes: torch.Tensor) -> Tabled:
    return replace(stored, codes=packed_codes(stored.table, codes, stored.bits))


@with_codes.register
def with_codes_four_bit(stored: FourBit, codes: torch.Tensor) -> FourBit:
    pairs = torch.nn.functional.pad(codes, (0, len(codes) % 2)).view(-1, 2)
    return replace(stored, codes=pairs[:, 0] << 4 | pairs[:, 1])


@with_codes.register
def with_codes_row_int8(stored: RowInt8, codes: torch.Tensor) -> RowInt8:
    return replace(stored, codes=shaped(codes, stored.shape).view(torch.int8))


@with_codes.register
def with_codes_float8(stored: Float8, codes: torch.Tensor) -> Float8:
    return replace(stored, numbers=shaped(codes, stored.shape).view(stored.numbers.dtype))


def shaped(codes: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    return codes.view(shape) if len(codes) == shape[0] * shape[1] else codes


def forecast_keeping_zeros(stored: Stored, left: int) -> Stored:
    """Return the result of ``keeping_zeros`` from a storage plan and the number of remaining
    weights.
    """
    place = next(iter(stored.parts()), None)
    if place:
        return replace(stored, **{place: forecast_keeping_zeros(stored.parts()[place], left)})
    if isinstance(stored, Dense):
        return sparse_blueprint(stored.shape, left, stored.weight.dtype, "smallest")
    if not has_codes(stored):
        return stored
    count, bits, field = (
        stored.shape[0] * stored.shape[1],
        code_bits(stored),
        "numbers" if isinstance(stored, Float8) else "codes",
    )
    none = replace(stored, **{field: getattr(stored, field).new_empty(0)})
    mask, codes = (
        torch.empty(size, dtype=torch.uint8, device="meta")
        for size in (packed_bytes(count, 1), packed_bytes(left, bits))
    )
    sieved = Sieved(stored.shape, none, mask, bits, codes)
    return min([sieved, *([stored] if has_a_zero(stored) else [])], key=lambda way: way.nbytes)


def has_a_zero(stored: Stored) -> bool:
    """Return True if zero is certainly among the levels; the means of a codebook rarely
    include it.
    """
    return not isinstance(stored, Shared) and getattr(stored, "table", "") != "binary"


def code_bits(stored: Stored) -> int:
    return 4 if isinstance(stored, FourBit) else getattr(stored, "bits", 8)
