"""Codes into a fixed table of levels with a scale: ternary, binary, 4-bit floats, powers of two."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch

from engine.tensors.packing import (
    code_counts,
    pack_bits,
    pack_trits,
    packed_size_bytes,
    unpack_bits,
    unpack_trits,
)
from engine.tensors.weights import StoredWeight, groups_with_params

# OCP Microscaling Formats 1.0, section 5.3.3; the code's highest bit is the sign
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
Table = Literal["binary", "ternary", "e2m1", "powers-of-two"]


@dataclass(frozen=True)
class LookupTableWeight(StoredWeight):
    """weight = scale * table[code]. One scale for the tensor, a row, or a group inside a row."""

    kind: ClassVar[str] = "tabled"
    names: ClassVar[dict[str, str]] = {"codes": "codes", "scales": "scales"}
    table: Table
    bits: int  # bits of a code; ternary codes count as 2 and are stored five in a byte
    group_size: int  # columns that share a scale; the last group may be shorter
    codes: torch.Tensor  # bytes, see ``packing``
    # (out, groups), (out, 1) or (1, 1); float16, float32 where that is too coarse, or E8M0: powers
    # of two in a byte
    scales: torch.Tensor
    steps_per_octave: int | None = None  # of powers of two

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        weight = self.values()[self.flat_codes().int()].view(self.shape)
        for part, scale in groups_with_params(weight, self.group_size, self.scales.float()):
            part.mul_(scale)
        return weight.to(dtype)

    def values(self) -> torch.Tensor:
        """The table, on the codes' device."""
        return level_table(self.table, self.bits, self.steps_per_octave or 1).to(self.codes.device)

    def flat_codes(self) -> torch.Tensor:
        """(out * in_,) uint8"""
        count = self.shape[0] * self.shape[1]
        return (
            unpack_trits(self.codes, count)
            if self.table == "ternary"
            else unpack_bits(self.codes, self.bits, count)
        )

    def levels(self) -> torch.Tensor:
        return self.values().sort().values * self.scales.float().flatten().median()

    def level_counts(self) -> torch.Tensor:
        order = self.values().argsort(stable=True)
        return code_counts(self.flat_codes(), len(order))[order]


def pack_table_codes(table: Table, codes: torch.Tensor, bits: int) -> torch.Tensor:
    return pack_trits(codes) if table == "ternary" else pack_bits(codes, bits)


def table_codes_bytes(table: Table, count: int, bits: int) -> int:
    return -(-count // 5) if table == "ternary" else packed_size_bytes(count, bits)


@lru_cache
def level_table(table: Table, bits: int, steps_per_octave: int) -> torch.Tensor:
    """Value of each code for a scale of 1."""
    match table:
        case "binary":
            return torch.tensor([-1.0, 1.0])
        case "ternary":
            return torch.tensor([-1.0, 0.0, 1.0])
        case "e2m1":
            return torch.tensor([*E2M1, *(-value for value in E2M1)])
    falling = torch.exp2(
        -torch.arange(magnitude_count(bits), dtype=torch.float64) / steps_per_octave
    )
    return torch.cat([-falling, torch.zeros(1, dtype=torch.float64), falling.flip(0)]).float()


def magnitude_count(bits: int) -> int:
    """Powers of two with zero and signs; one code of 2^bits is unused."""
    return 2 ** (bits - 1) - 1


def powers_of_two(exponents: torch.Tensor) -> torch.Tensor:
    """2^exponent in a byte each (E8M0), from 2^-127 to 2^127."""
    return (exponents + 127).clamp(0, 254).to(torch.uint8).view(torch.float8_e8m0fnu)
