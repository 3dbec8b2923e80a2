"""Huffman coding of small whole numbers, canonical, with starting points so that many places are
decoded at once.

The file holds each symbol's code length and the bits; the codes follow from the lengths (RFC 1951,
section 3.2.2). The first bit of a code is the highest still free in its byte. After each CHUNK
symbols the number of their bits is noted: 16 bits for 512 symbols.
"""

import heapq
from itertools import count

import torch
from torch.nn.functional import pad

CHUNK_SYMBOLS = 512
MAX_CODE_BITS = 16  # bits of a code, so that one table of 65536 entries decodes every code


def code_lengths(counts: list[int]) -> list[int]:
    """Code length of each symbol with the smallest total; 0 for symbols that do not occur. Lengths
    above LONGEST are avoided by flattening the counts.
    """
    lengths = optimal_lengths(counts)
    while max(lengths) > MAX_CODE_BITS:
        counts = [1 + number // 2 if number else 0 for number in counts]
        lengths = optimal_lengths(counts)
    return lengths


def optimal_lengths(counts: list[int]) -> list[int]:
    """Huffman 1952: merge the two rarest until one is left; each merge lengthens the codes below it
    by one bit.
    """
    lengths, tie = [0] * len(counts), count()
    rarest = [(number, next(tie), [symbol]) for symbol, number in enumerate(counts) if number]
    if len(rarest) == 1:
        lengths[rarest[0][2][0]] = 1
    heapq.heapify(rarest)
    while len(rarest) > 1:
        (less, _, left), (more, _, right) = heapq.heappop(rarest), heapq.heappop(rarest)
        for symbol in left + right:
            lengths[symbol] += 1
        heapq.heappush(rarest, (less + more, next(tie), left + right))
    return lengths


def canonical_codes(lengths: torch.Tensor) -> torch.Tensor:
    """Code of each symbol, as a number of its length in bits. (symbols,) int64"""
    codes, code, before = torch.zeros(len(lengths), dtype=torch.int64), 0, 0
    for symbol in symbols_in_code_order(lengths).tolist():
        code <<= int(lengths[symbol]) - before
        codes[symbol], before = code, int(lengths[symbol])
        code += 1
    return codes


def symbols_in_code_order(lengths: torch.Tensor) -> torch.Tensor:
    """Symbols that have a code, shorter codes first, then by number."""
    order = lengths.argsort(stable=True)
    return order[lengths[order] > 0]


def encode_symbols(
    symbols: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The bits as bytes, and the length of each chunk, int16. symbols: (count,) uint8, lengths:
    (symbols,) uint8
    """
    indices = symbols.int()
    bits = lengths.int()[indices]
    ends = bits.cumsum(0)
    starts = ends - bits
    # a code of at most 16 bits, begun inside a byte, ends within three bytes
    words = canonical_codes(lengths.cpu()).to(symbols.device)[indices] << (24 - bits - (starts & 7))
    data = torch.zeros(int(ends[-1] + 7) // 8 + 2, dtype=torch.int32, device=symbols.device)
    for byte in range(3):
        data.index_add_(0, (starts >> 3) + byte, ((words >> (16 - 8 * byte)) & 255).int())
    chunk_ends = ends[
        torch.arange(
            CHUNK_SYMBOLS, len(symbols) + CHUNK_SYMBOLS, CHUNK_SYMBOLS, device=ends.device
        ).clamp(max=len(symbols))
        - 1
    ]
    return data[:-2].to(torch.uint8), chunk_ends.diff(prepend=chunk_ends.new_zeros(1)).to(
        torch.int16
    )


def decode_symbols(
    data: torch.Tensor, lengths: torch.Tensor, chunk_bits: torch.Tensor, count: int
) -> torch.Tensor:
    """Decode the bytes of ``encode_symbols``, (count,) uint8. All chunks are decoded in parallel,
    one symbol per step.
    """
    table = decoding_table(lengths)
    # the last chunk may be short, and reading continues beyond it
    padded = pad(data, (0, CHUNK_SYMBOLS * MAX_CODE_BITS // 8 + 2)).long()
    words = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]  # the 24 bits from each byte on
    position = chunk_bits.long().cumsum(0) - chunk_bits
    symbols = torch.empty(
        min(CHUNK_SYMBOLS, count), len(chunk_bits), dtype=torch.uint8, device=data.device
    )
    for step in range(len(symbols)):
        entry = table.take(
            words.take(position >> 3) >> (8 - (position & 7)) & (2**MAX_CODE_BITS - 1)
        )
        symbols[step] = entry >> 8
        position += entry & 255
    return symbols.T.flatten()[:count]


def decoding_table(lengths: torch.Tensor) -> torch.Tensor:
    """For all values of the next 16 bits: their first symbol times 256, plus its length. (65536,)
    int64
    """
    order = symbols_in_code_order(lengths)
    entries = (order << 8 | lengths[order]).repeat_interleave(
        1 << (MAX_CODE_BITS - lengths[order].long())
    )
    return pad(entries, (0, 2**MAX_CODE_BITS - len(entries)))


def entropy_bits(counts: torch.Tensor) -> float:
    """Entropy: minimum bits per symbol of any code."""
    shares = counts[counts > 0].double() / counts.sum()
    return -(shares * shares.log2()).sum().item()
