"""Codes of b bits in whole bytes: 4-bit codes really take half a byte."""

import torch
from torch.nn.functional import pad

TOGETHER = 8  # so many codes of b bits fill b whole bytes


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that ``count`` codes of ``bits`` bits take."""
    return -(-count * bits // 8)


def packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Unsigned codes below 2^bits (uint8, any shape) as a row of bytes, the first code in the lowest bits."""
    flat = codes.flatten()
    parts = pad(flat, (0, -len(flat) % TOGETHER)).view(-1, TOGETHER)
    words = torch.zeros(len(parts), dtype=torch.int64, device=codes.device)
    for place in range(TOGETHER):
        words |= parts[:, place].long() << (bits * place)
    return words.view(torch.uint8).view(-1, 8)[:, :bits].flatten()[: packed_bytes(len(flat), bits)].clone()


def unpacked(data: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The ``count`` codes that ``packed`` put into these bytes, uint8.  (count,)"""
    rows = pad(data, (0, -len(data) % bits)).view(-1, bits)
    words = pad(rows, (0, 8 - bits)).view(torch.int64).squeeze(1)  # a row of b bytes, as one number
    codes = torch.empty(len(words), TOGETHER, dtype=torch.uint8, device=data.device)
    for place in range(TOGETHER):
        codes[:, place] = (words >> (bits * place)) & (2**bits - 1)
    return codes.flatten()[:count]
