"""Codes into fixed tables of levels."""

import pytest
import torch

from engine.tensors.lookup_table import (
    LookupTableWeight,
    level_table,
    pack_table_codes,
    powers_of_two,
    table_codes_bytes,
)
from tests.cases import for_each

TABLES = [("binary", 1, 2), ("ternary", 2, 3), ("e2m1", 4, 16), ("powers-of-two", 4, 15)]


def test_e2m1_has_a_sign_two_bits_of_exponent_and_one_of_mantissa():
    for code, level in enumerate(level_table("e2m1", 4, 1).tolist()):
        sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
        magnitude = (1 + mantissa / 2) * 2 ** (exponent - 1) if exponent else mantissa / 2
        assert level == (-1) ** sign * magnitude


@for_each(("bits", "steps"), [(3, 1), (4, 1), (4, 2), (5, 4)])
def test_powers_of_two_fall_by_one_step_and_hold_zero(bits, steps):
    levels = level_table("powers-of-two", bits, steps).double()
    above = levels[levels > 0]
    assert above.max() == 1 and (levels == 0).sum() == 1 and len(levels) == 2**bits - 1
    assert (above[1:] / above[:-1]).log2().tolist() == pytest.approx([1 / steps] * (len(above) - 1))
    assert torch.equal(levels, -levels.flip(0))


@for_each(("table", "bits", "levels"), TABLES)
@for_each("shape", [(3, 7), (1, 1), (5, 20)], ids=str)
def test_weights_are_scale_times_level_group_by_group(table, bits, levels, shape):
    draw = torch.Generator().manual_seed(0)
    codes = torch.randint(0, levels, shape, generator=draw, dtype=torch.uint8)
    groups = -(-shape[1] // 4)
    scales = torch.rand(shape[0], groups, generator=draw) + 0.5
    packed = pack_table_codes(table, codes.flatten(), bits)
    stored = LookupTableWeight(shape, table, bits, 4, packed, scales, 1)
    scale = scales.repeat_interleave(4, 1)[:, : shape[1]]
    assert torch.equal(stored.to_dense(), level_table(table, bits, 1)[codes.long()] * scale)
    assert len(packed) == table_codes_bytes(table, codes.numel(), bits)
    assert stored.level_counts().sum() == codes.numel()


def test_a_byte_holds_every_power_of_two_from_minus_127_to_127():
    exponents = torch.arange(-127, 128)
    assert torch.equal(powers_of_two(exponents).float().log2().long(), exponents)
    assert powers_of_two(torch.tensor([500])).float().log2() == 127
