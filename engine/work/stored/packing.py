"""Codes of b bits in whole bytes: 4-bit codes really take half a byte."""

import numpy as np
import torch

CHUNK = 1 << 20  # codes unpacked to single bits at a time; a multiple of 8, so chunks end on whole bytes


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that ``count`` codes of ``bits`` bits take."""
    return -(-count * bits // 8)


def packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Unsigned codes below 2^bits (uint8, any shape) as a row of bytes, the first code in the lowest bits."""
    flat = codes.flatten()
    if bits == 8:
        return flat.clone()
    if bits in (2, 4):
        return _packed_evenly(flat, bits)
    parts = [np.packbits(_bits(part.numpy(), bits), bitorder="little") for part in flat.cpu().split(CHUNK)]
    return torch.from_numpy(np.concatenate(parts) if parts else np.zeros(0, np.uint8)).to(codes.device)


def unpacked(data: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The ``count`` codes that ``packed`` put into these bytes, uint8.  (count,)"""
    if bits == 8:
        return data[:count]
    if bits in (2, 4):
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=data.device)
        return ((data[:, None] >> shifts) & (2**bits - 1)).flatten()[:count]
    parts = [_codes(part.numpy(), bits) for part in data.cpu().split(packed_bytes(CHUNK, bits))]
    return torch.from_numpy(np.concatenate(parts)[:count] if parts else np.zeros(0, np.uint8)).to(data.device)


def _packed_evenly(flat: torch.Tensor, bits: int) -> torch.Tensor:
    each = 8 // bits
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % each)).view(-1, each)
    byte = torch.zeros(len(flat), dtype=torch.uint8, device=flat.device)
    for place in range(each):
        byte |= flat[:, place] << (place * bits)
    return byte


def _bits(codes: np.ndarray, bits: int) -> np.ndarray:
    return np.unpackbits(codes[:, None], axis=1, count=bits, bitorder="little").ravel()


def _codes(data: np.ndarray, bits: int) -> np.ndarray:
    single = np.unpackbits(data, bitorder="little")
    return np.packbits(single[: len(single) // bits * bits].reshape(-1, bits), axis=1, bitorder="little").ravel()
