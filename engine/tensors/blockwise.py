"""The bitsandbytes formats as stored weights. Codes are computed by the library; dequantization is
implemented here, because the library's CPU code is wrong where a block does not divide a row.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch

from engine.tensors.packing import code_counts
from engine.tensors.weights import StoredWeight

# quantiles of the normal distribution, zero exact (QLoRA, arXiv:2305.14314, appendix E)
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
# sign, 2 bits exponent, 1 bit mantissa
FP4 = tuple(
    sign * value / 12 for sign in (1, -1) for value in (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)
)
TABLES = {"nf4": NF4, "fp4": FP4}
LOOKUP_CHUNK = 1 << 18  # bytes
NESTED_BLOCK = 256  # absmax values that share one second-level absmax


@dataclass(frozen=True)
class FourBit(StoredWeight):
    """NF4 or FP4: blocks of the flattened weight share an absmax, stored in float32 or, with double
    quantization, in 8 bits.
    """

    kind: ClassVar[str] = "four-bit"
    names: ClassVar[dict[str, str]] = {
        "codes": "codes",
        "absmax": "absmax",
        "nested_absmax": "second-level absmax",
        "offset": "second-level absmax",
    }
    format: Literal["nf4", "fp4"]
    block_size: int
    codes: torch.Tensor  # two per byte, the first in the high half
    absmax: torch.Tensor  # (blocks,) float32, or uint8 codes if nested_absmax is given
    nested_absmax: torch.Tensor | None = None  # (blocks / 256,) float32
    # (1,) mean of the absmax values, subtracted before quantization
    offset: torch.Tensor | None = None

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        count = self.shape[0] * self.shape[1]
        values = self.level_values()[:count]
        # start of a shorter last block
        largest, edge = self.block_absmax(), count // self.block_size * self.block_size
        values[:edge].view(-1, self.block_size).mul_(largest[: count // self.block_size, None])
        values[edge:].mul_(largest[-1])
        return values.view(self.shape).to(dtype)

    def level_values(self) -> torch.Tensor:
        """Value of each code, including an unused one in the last byte; computed in pieces. (2 *
        bytes,) float32
        """
        table = byte_values(self.format).to(self.codes.device)
        values = torch.empty(len(self.codes), 2, device=self.codes.device)
        for codes, target in zip(
            self.codes.split(LOOKUP_CHUNK), values.split(LOOKUP_CHUNK), strict=True
        ):
            target.copy_(table[codes.int()])
        return values.flatten()

    def block_absmax(self) -> torch.Tensor:
        """(blocks,) float32"""
        if self.nested_absmax is None:
            return self.absmax
        scale = self.nested_absmax.repeat_interleave(NESTED_BLOCK)[: len(self.absmax)]
        return dynamic_map().to(scale.device)[self.absmax.int()] * scale + self.offset

    def levels(self) -> torch.Tensor:
        return torch.tensor(sorted(TABLES[self.format])) * self.block_absmax().median().cpu()

    def level_counts(self) -> torch.Tensor:
        halves = torch.stack([self.codes >> 4, self.codes & 15], 1).flatten()[
            : self.shape[0] * self.shape[1]
        ]
        return code_counts(halves, 16).cpu()[torch.tensor(TABLES[self.format]).argsort(stable=True)]


@dataclass(frozen=True)
class RowInt8(StoredWeight):
    """Signed 8-bit codes with one absmax per row: weight = code * absmax / 127."""

    kind: ClassVar[str] = "row-int8"
    names: ClassVar[dict[str, str]] = {"codes": "codes", "absmax": "absmax"}
    codes: torch.Tensor  # (out, in_) int8
    absmax: torch.Tensor  # (out,) float32

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return self.codes.float().mul_(self.absmax[:, None] / 127).to(dtype)

    def levels(self) -> torch.Tensor:
        return torch.arange(-127, 128) * (self.absmax.median().cpu() / 127)

    def level_counts(self) -> torch.Tensor:
        return code_counts(self.codes.view(torch.uint8), 256)[torch.arange(-127, 128) % 256]


@lru_cache
def byte_values(format: Literal["nf4", "fp4"]) -> torch.Tensor:
    """Levels of both codes in a byte, the high half's first. (256, 2)"""
    table = torch.tensor(TABLES[format])
    return torch.stack([table.repeat_interleave(16), table.repeat(16)], dim=1)


@lru_cache(maxsize=1)
def dynamic_map() -> torch.Tensor:
    """The 256 values of the 8-bit format in which double quantization stores absmax."""
    from bitsandbytes.functional import create_dynamic_map

    return create_dynamic_map()
