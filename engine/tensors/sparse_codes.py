"""Quantized weights of which many were zero before: they stay zero and need not be stored."""

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import ClassVar

import torch

from engine.tensors.blockwise import FourBit, RowInt8
from engine.tensors.codebook import CodebookWeight
from engine.tensors.floats import Float8
from engine.tensors.lookup_table import LookupTableWeight, pack_table_codes
from engine.tensors.low_rank import AdaptedWeight
from engine.tensors.packing import pack_bits, packed_size_bytes, unpack_bits
from engine.tensors.sparse import sparse_storage_plan, sparse_weight
from engine.tensors.weights import DenseWeight, IntegerWeight, StoredWeight, TransposedWeight


@dataclass(frozen=True)
class MaskedWeight(StoredWeight):
    """A stored weight, and a bit for each position that is 0 where the weight is zero."""

    kind: ClassVar[str] = "masked"
    names: ClassVar[dict[str, str]] = {"mask": "mask"}
    weight: StoredWeight
    mask: torch.Tensor  # (out * in_ / 8,) uint8, 1 for a remaining weight

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return (
            self.without_mask()
            .to_dense(torch.float32)
            .masked_fill_(~self.remaining_mask().view(self.shape), 0)
            .to(dtype)
        )

    def remaining_mask(self) -> torch.Tensor:
        """(out * in_,) bool"""
        return unpack_bits(self.mask, 1, self.shape[0] * self.shape[1]).bool()

    def without_mask(self) -> StoredWeight:
        """The weight without the mask."""
        return self.weight

    def quantized_inputs(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.weight.quantized_inputs(inputs)

    def levels(self) -> torch.Tensor:
        return self.weight.levels()

    def level_counts(self) -> torch.Tensor:
        return self.weight.level_counts()


@dataclass(frozen=True)
class SparseCodesWeight(MaskedWeight):
    """Codes of the remaining weights only; scales and metadata are as in a weight with a code for
    each position.
    """

    kind: ClassVar[str] = "sieved"
    names: ClassVar[dict[str, str]] = {"mask": "mask", "codes": "codes"}
    bits: int  # of a code
    # bytes, see ``packing``, of the remaining weights, row by row. ``weight`` holds none
    codes: torch.Tensor

    @classmethod
    def of(cls, stored: StoredWeight, left: torch.Tensor) -> "SparseCodesWeight":
        """``left``: (out * in_,) bool"""
        codes, bits = weight_codes(stored), code_bits(stored)
        return cls(
            stored.shape,
            with_codes(stored, codes[:0]),
            pack_bits(left.to(torch.uint8), 1),
            bits,
            pack_bits(codes[left], bits),
        )

    def without_mask(self) -> StoredWeight:
        left = self.remaining_mask()
        codes = torch.zeros(len(left), dtype=torch.uint8, device=left.device)
        codes[left] = self.remaining_codes()
        return with_codes(self.weight, codes)

    def remaining_codes(self) -> torch.Tensor:
        return unpack_bits(self.codes, self.bits, int(self.remaining_mask().sum()))

    def level_counts(self) -> torch.Tensor:
        codes = self.remaining_codes()
        return replace(with_codes(self.weight, codes), shape=(1, len(codes))).level_counts()


def preserve_zeros(stored: StoredWeight, zeros: torch.Tensor) -> StoredWeight:
    """The smallest storage of the weight with zeros where the mask is True. zeros: (out,
    in_) bool
    """
    if isinstance(stored, AdaptedWeight):  # an adapter trained with it is dense
        return replace(stored, base=preserve_zeros(stored.base, zeros))
    inner = stored.parts().get("weight") or stored.parts().get("columns")
    # masks the weight inside; separately stored columns, factors and activation ranges are
    # unchanged
    # are
    if inner is not None:
        name = "columns" if isinstance(stored, TransposedWeight) else "weight"
        stored = replace(
            stored,
            **{
                name: preserve_zeros(
                    inner, zeros.T if isinstance(stored, TransposedWeight) else zeros
                )
            },
        )
        return stored if not stored.to_dense()[zeros].any() else masked_weight(stored, zeros)
    if isinstance(stored, DenseWeight):
        return sparse_weight(stored.weight.masked_fill(zeros, 0), "smallest")
    candidates = [stored] if not stored.to_dense()[zeros].any() else [masked_weight(stored, zeros)]
    candidates += [SparseCodesWeight.of(stored, ~zeros.flatten())] if has_codes(stored) else []
    return min(candidates, key=lambda weight: weight.nbytes)


def remaining_mask(stored: StoredWeight) -> torch.Tensor:
    """Mask of the weights that no earlier step removed, as far as known, (out, in_) bool."""
    return (
        stored.remaining_mask().view(stored.shape)
        if isinstance(stored, MaskedWeight)
        else stored.to_dense() != 0
    )


def masked_weight(stored: StoredWeight, zeros: torch.Tensor) -> MaskedWeight:
    return MaskedWeight(stored.shape, stored, pack_bits((~zeros).to(torch.uint8), 1))


def has_codes(stored: StoredWeight) -> bool:
    """Return True if there is a code for each weight, in order."""
    return (
        type(stored) in weight_codes.registry
        and getattr(stored, "order", None) is None
        and getattr(stored, "lengths", None) is None
    )


@singledispatch
def weight_codes(stored: StoredWeight) -> torch.Tensor:
    """The code of each weight, (out * in_,) uint8."""
    raise TypeError(f"{type(stored).__name__} has no codes")


@weight_codes.register
def weight_codes_integer(stored: IntegerWeight) -> torch.Tensor:
    return stored.code_matrix().flatten()


@weight_codes.register
def weight_codes_lookup_table(stored: LookupTableWeight) -> torch.Tensor:
    return stored.flat_codes()


@weight_codes.register
def weight_codes_codebook(stored: CodebookWeight) -> torch.Tensor:
    return stored.indices()


@weight_codes.register
def weight_codes_four_bit(stored: FourBit) -> torch.Tensor:
    halves = torch.stack([stored.codes >> 4, stored.codes & 15], 1).flatten()
    return halves[: stored.shape[0] * stored.shape[1]]


@weight_codes.register
def weight_codes_row_int8(stored: RowInt8) -> torch.Tensor:
    return stored.codes.view(torch.uint8).flatten()


@weight_codes.register
def weight_codes_float8(stored: Float8) -> torch.Tensor:
    return stored.numbers.view(torch.uint8).flatten()


@singledispatch
def with_codes(stored: StoredWeight, codes: torch.Tensor) -> StoredWeight:
    """Copy with other codes, possibly none.  codes: (count,) uint8"""
    return replace(stored, codes=pack_bits(codes, stored.bits))


@with_codes.register
def with_codes_lookup_table(stored: LookupTableWeight, codes: torch.Tensor) -> LookupTableWeight:
    return replace(stored, codes=pack_table_codes(stored.table, codes, stored.bits))


@with_codes.register
def with_codes_four_bit(stored: FourBit, codes: torch.Tensor) -> FourBit:
    pairs = torch.nn.functional.pad(codes, (0, len(codes) % 2)).view(-1, 2)
    return replace(stored, codes=pairs[:, 0] << 4 | pairs[:, 1])


@with_codes.register
def with_codes_row_int8(stored: RowInt8, codes: torch.Tensor) -> RowInt8:
    return replace(stored, codes=codes_in_shape(codes, stored.shape).view(torch.int8))


@with_codes.register
def with_codes_float8(stored: Float8, codes: torch.Tensor) -> Float8:
    return replace(stored, numbers=codes_in_shape(codes, stored.shape).view(stored.numbers.dtype))


def codes_in_shape(codes: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    return codes.view(shape) if len(codes) == shape[0] * shape[1] else codes


def preserve_zeros_plan(stored: StoredWeight, nonzero_count: int) -> StoredWeight:
    """Return the result of ``preserve_zeros`` from a storage plan and the number of remaining
    weights.
    """
    name = next(iter(stored.parts()), None)
    if name:
        return replace(stored, **{name: preserve_zeros_plan(stored.parts()[name], nonzero_count)})
    if isinstance(stored, DenseWeight):
        return sparse_storage_plan(stored.shape, nonzero_count, stored.weight.dtype, "smallest")
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
        for size in (packed_size_bytes(count, 1), packed_size_bytes(nonzero_count, bits))
    )
    sieved = SparseCodesWeight(stored.shape, none, mask, bits, codes)
    return min(
        [sieved, *([stored] if has_zero_level(stored) else [])], key=lambda plan: plan.nbytes
    )


def has_zero_level(stored: StoredWeight) -> bool:
    """Return True if zero is certainly among the levels; the centroids of a codebook rarely include
    it.
    """
    return not isinstance(stored, CodebookWeight) and getattr(stored, "table", "") != "binary"


def code_bits(stored: StoredWeight) -> int:
    return 4 if isinstance(stored, FourBit) else getattr(stored, "bits", 8)
