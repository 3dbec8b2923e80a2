"""Weights stored as indices into a codebook."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch

from engine.quantities import megabytes
from engine.tensors.huffman import code_lengths, decode_symbols, entropy_bits
from engine.tensors.packing import code_counts, unpack_bits
from engine.tensors.weights import StoredWeight


@dataclass(frozen=True)
class CodebookWeight(StoredWeight):
    """Indices into a codebook (Deep Compression, arXiv:1510.00149), one for all rows or one per
    band of rows. Indices take ``bits`` each, or less with Huffman coding; coded ones are decoded
    once, at their first use.
    """

    kind: ClassVar[str] = "shared"
    names: ClassVar[dict[str, str]] = {
        "codes": "codes",
        "books": "codebook",
        "lengths": "Huffman code lengths",
        "chunk_bits": "Huffman starting points",
    }
    bits: int
    rows: int  # rows that share a codebook
    codes: torch.Tensor  # bytes, see ``packing`` and ``huffman``
    books: torch.Tensor  # (bands, 2^bits) float32, ascending
    # (2^bits,) uint8: bits of each index, with Huffman coding
    lengths: torch.Tensor | None = None
    chunk_bits: torch.Tensor | None = None  # int16, see ``huffman``

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        entries = self.indices().view(self.shape).int()
        if len(self.books) > 1:
            entries += (
                torch.arange(self.shape[0], device=entries.device, dtype=torch.int32)
                // self.rows
                * 2**self.bits
            )[:, None]
        return self.books.flatten()[entries].to(dtype)

    def indices(self) -> torch.Tensor:
        """(out * in_,) uint8"""
        return (
            unpack_bits(self.codes, self.bits, self.shape[0] * self.shape[1])
            if self.lengths is None
            else self._decoded_indices
        )

    @cached_property
    def _decoded_indices(self) -> torch.Tensor:
        return decode_symbols(
            self.codes, self.lengths, self.chunk_bits, self.shape[0] * self.shape[1]
        )

    def levels(self) -> torch.Tensor:
        return self.books[len(self.books) // 2]

    def level_counts(self) -> torch.Tensor:
        return code_counts(self.indices(), 2**self.bits)

    def note(self) -> str:
        """Size of the indices with Huffman coding."""
        counts = self.level_counts()
        total, entropy = counts.sum().item(), entropy_bits(counts)
        bits = (counts.cpu() * torch.tensor(code_lengths(counts.tolist()))).sum().item()
        size = (
            f"{bits / total:.2f} bits instead of {self.bits} (entropy {entropy:.2f}), "
            f"{megabytes(bits / 8)} instead of {megabytes(self.bits * total / 8)}"
        )
        return (
            f"Huffman-coded indices take {size}"
            if self.lengths is not None
            else f"with Huffman coding the indices would take {size}"
        )
