"""Packing of codes with b bits into bytes."""

from functools import lru_cache

import torch
from torch.nn.functional import pad

CODES_PER_WORD = 8  # this many codes of b bits fill b bytes
COUNT_CHUNK = 1 << 20
TRITS_PER_BYTE = 5  # digits of base three in a byte: 3^5 = 243


def packed_size_bytes(count: int, bits: int) -> int:
    """Bytes of ``count`` codes of ``bits`` bits."""
    return -(-count * bits // 8)


def pack_bits(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack unsigned codes below 2^bits (uint8, any shape) into bytes, the first code in the lowest
    bits.
    """
    flat = codes.flatten()
    parts = pad(flat, (0, -len(flat) % CODES_PER_WORD)).view(-1, CODES_PER_WORD)
    words = torch.zeros(len(parts), dtype=torch.int64, device=codes.device)
    for slot in range(CODES_PER_WORD):
        words |= parts[:, slot].long() << (bits * slot)
    return (
        words.view(torch.uint8)
        .view(-1, 8)[:, :bits]
        .flatten()[: packed_size_bytes(len(flat), bits)]
        .clone()
    )


def unpack_bits(data: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """Unpack ``count`` codes of ``pack_bits``, uint8. (count,)"""
    rows = pad(data, (0, -len(data) % bits)).view(-1, bits)
    words = pad(rows, (0, 8 - bits)).view(torch.int64).squeeze(1)  # b bytes per row, as one number
    codes = torch.empty(len(words), CODES_PER_WORD, dtype=torch.uint8, device=data.device)
    for slot in range(CODES_PER_WORD):
        codes[:, slot] = (words >> (bits * slot)) & (2**bits - 1)
    return codes.flatten()[:count]


def code_counts(codes: torch.Tensor, values: int) -> torch.Tensor:
    """Number of occurrences of each code 0 ... values - 1, (values,). Counted in chunks, because
    torch uses 8 bytes per code.
    """
    return sum(part.bincount(minlength=values) for part in codes.flatten().split(COUNT_CHUNK))


def pack_trits(codes: torch.Tensor) -> torch.Tensor:
    """Pack codes 0, 1 and 2 (uint8, any shape) into bytes, five in each, the first in the lowest
    digit: 1.6 bits per code.
    """
    flat = codes.flatten()
    digits = pad(flat, (0, -len(flat) % TRITS_PER_BYTE)).view(-1, TRITS_PER_BYTE)
    number = torch.zeros(len(digits), dtype=torch.uint8, device=codes.device)
    for slot in reversed(range(TRITS_PER_BYTE)):
        number.mul_(3).add_(digits[:, slot])
    return number


def unpack_trits(data: torch.Tensor, count: int) -> torch.Tensor:
    """Unpack ``count`` codes of ``pack_trits``, uint8. (count,)"""
    return trits_of_bytes(data.device)[data.int()].flatten()[:count]


@lru_cache
def trits_of_bytes(device: torch.device) -> torch.Tensor:
    """The five base-3 digits of every byte, lowest first. (256, 5)"""
    numbers = torch.arange(256, device=device)
    return torch.stack([numbers // 3**slot % 3 for slot in range(TRITS_PER_BYTE)], 1).to(
        torch.uint8
    )
