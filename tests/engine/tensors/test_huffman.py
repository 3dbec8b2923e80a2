"""Huffman coding: shortest, and back again."""

import heapq
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.tensors.huffman import (
    CHUNK_SYMBOLS,
    MAX_CODE_BITS,
    canonical_codes,
    code_lengths,
    decode_symbols,
    encode_symbols,
    entropy_bits,
)

few = settings(max_examples=20)
counts = st.lists(st.integers(0, 1000), min_size=2, max_size=256).filter(any)


@st.composite
def symbols(draw):
    """Any number of symbols, some so rare that their codes are long; the number of chunks
    varies.
    """
    count = draw(
        st.sampled_from(
            [1, 2, CHUNK_SYMBOLS - 1, CHUNK_SYMBOLS, CHUNK_SYMBOLS + 1, 3 * CHUNK_SYMBOLS + 7]
        )
    )
    spread = draw(st.sampled_from([0.1, 2.0, 40.0]))
    values = (
        torch.randn(count, generator=torch.Generator().manual_seed(draw(st.integers(0, 1000))))
        * spread
        + 128
    )
    return values.round().clamp(0, 255).to(torch.uint8)


def lengths_for(values: torch.Tensor) -> torch.Tensor:
    return torch.tensor(code_lengths(values.bincount(minlength=256).tolist()), dtype=torch.uint8)


@few
@given(symbols())
def test_decoding_inverts_encoding(values):
    lengths = lengths_for(values)
    data, chunk_bits = encode_symbols(values, lengths)
    assert torch.equal(decode_symbols(data, lengths, chunk_bits, len(values)), values)


@few
@given(symbols())
def test_the_bytes_are_the_codes_one_after_the_other(values):
    lengths = lengths_for(values)
    data, chunk_bits = encode_symbols(values, lengths)
    codes = canonical_codes(lengths)
    bits = "".join(f"{codes[value]:0{lengths[value]}b}" for value in values.tolist())
    assert "".join(f"{byte:08b}" for byte in data.tolist()) == bits.ljust(8 * len(data), "0")
    assert len(data) == -(-len(bits) // 8) and chunk_bits.sum() == len(bits)


@given(counts)
def test_no_code_is_a_prefix_of_another(counts):
    lengths = torch.tensor(code_lengths(counts))
    codes = canonical_codes(lengths)
    words = sorted(
        f"{code:0{length}b}"
        for code, length in zip(codes.tolist(), lengths.tolist(), strict=True)
        if length
    )
    assert not any(after.startswith(before) for before, after in pairwise(words))


@given(counts)
def test_the_bits_are_the_least_that_joining_the_rarest_gives(counts):
    heap, joined = [number for number in counts if number], 0
    heapq.heapify(heap)
    while len(heap) > 1:
        together = heapq.heappop(heap) + heapq.heappop(heap)
        joined += together
        heapq.heappush(heap, together)
    bits = sum(number * length for number, length in zip(counts, code_lengths(counts), strict=True))
    assert bits == (joined or sum(counts))


@given(counts)
def test_bits_lie_between_the_entropy_and_one_more(counts):
    mean = sum(
        number * length for number, length in zip(counts, code_lengths(counts), strict=True)
    ) / sum(counts)
    assert (
        entropy_bits(torch.tensor(counts)) - 1e-9 <= mean <= entropy_bits(torch.tensor(counts)) + 1
    )


def test_symbols_that_do_not_occur_have_no_code():
    assert code_lengths([0, 5, 0, 1]) == [0, 1, 0, 1] and code_lengths([0, 7]) == [0, 1]


def test_codes_of_the_steepest_counts_are_cut_to_what_the_table_holds():
    fibonacci = [1, 1]
    while len(fibonacci) < 40:
        fibonacci.append(sum(fibonacci[-2:]))
    lengths = code_lengths(fibonacci)
    assert max(lengths) <= MAX_CODE_BITS and sum(2.0**-length for length in lengths) <= 1
    values = torch.arange(40, dtype=torch.uint8).repeat(60)
    data, chunk_bits = encode_symbols(values, torch.tensor(lengths, dtype=torch.uint8))
    assert torch.equal(
        decode_symbols(data, torch.tensor(lengths, dtype=torch.uint8), chunk_bits, len(values)),
        values,
    )


@pytest.mark.parametrize("shares", [2, 4, 256])
def test_equally_frequent_symbols_have_their_logarithm(shares):
    assert entropy_bits(torch.full((shares,), 7)) == pytest.approx(
        torch.tensor(float(shares)).log2().item()
    )
    assert set(code_lengths([7] * shares)) == {shares.bit_length() - 1}
