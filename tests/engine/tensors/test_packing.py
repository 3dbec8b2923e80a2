"""Codes in whole bytes."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.tensors.packing import pack_bits, packed_size_bytes, unpack_bits
from tests.cases import for_each

BITS = st.integers(2, 8)


@st.composite
def codes(draw):
    """Any number of codes, and their bits."""
    bits = draw(BITS)
    return torch.tensor(
        draw(st.lists(st.integers(0, 2**bits - 1), max_size=80)), dtype=torch.uint8
    ), bits


@given(codes())
def test_unpacking_inverts_packing(drawn):
    values, bits = drawn
    assert torch.equal(unpack_bits(pack_bits(values, bits), bits, len(values)), values)


@given(codes())
def test_codes_take_their_bits_and_at_most_seven_more(drawn):
    values, bits = drawn
    data = pack_bits(values, bits)
    assert data.dtype == torch.uint8 and data.nbytes == packed_size_bytes(len(values), bits) == -(
        -len(values) * bits // 8
    )
    assert data.untyped_storage().nbytes() == data.nbytes


@given(codes())
def test_a_byte_is_filled_from_its_lowest_bit(drawn):
    values, bits = drawn
    number = sum(code << (bits * place) for place, code in enumerate(values.tolist()))
    assert bytes(pack_bits(values, bits).tolist()) == number.to_bytes(
        packed_size_bytes(len(values), bits), "little"
    )


@for_each("bits", range(2, 9))
def test_large_and_shaped_codes_are_unpacked_in_order(bits):
    values = torch.randint(0, 2**bits, (301, 1001), dtype=torch.uint8)
    assert torch.equal(
        unpack_bits(pack_bits(values, bits), bits, values.numel()).view(values.shape), values
    )
    assert torch.equal(pack_bits(values.T, bits), pack_bits(values.T.contiguous(), bits))
