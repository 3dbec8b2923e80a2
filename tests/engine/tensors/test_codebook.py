"""Indices into codebooks."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.tensors.codebook import CodebookWeight
from engine.tensors.huffman import code_lengths, encode_symbols
from engine.tensors.packing import pack_bits


def books(bands: int, bits: int) -> torch.Tensor:
    return torch.arange(bands * 2.0**bits).view(bands, -1)


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 4), st.integers(1, 6), st.data())
def test_every_weight_is_the_value_of_its_index_in_the_book_of_its_rows(out, in_, bits, rows, data):
    indices = torch.tensor(
        data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=out * in_, max_size=out * in_)),
        dtype=torch.uint8,
    )
    book = books(-(-out // rows), bits)
    stored = CodebookWeight((out, in_), bits, rows, pack_bits(indices, bits), book)
    grid = indices.view(out, in_).long()
    due = torch.stack([book[row // rows][grid[row]] for row in range(out)])
    assert torch.equal(stored.to_dense(), due)
    assert stored.level_counts().tolist() == grid.flatten().bincount(minlength=2**bits).tolist()


def test_huffman_coded_indices_give_the_same_weight():
    indices = torch.tensor([0] * 50 + [1] * 9 + [3], dtype=torch.uint8)
    lengths = code_lengths(indices.bincount(minlength=4).tolist())
    lengths = torch.tensor(lengths, dtype=torch.uint8)
    codes, chunks = encode_symbols(indices, lengths)
    plain = CodebookWeight((6, 10), 2, 6, pack_bits(indices, 2), books(1, 2))
    coded = CodebookWeight((6, 10), 2, 6, codes, books(1, 2), lengths, chunks)
    assert torch.equal(plain.to_dense(), coded.to_dense()) and len(codes) < len(plain.codes)
    assert "would take" in plain.note() and "indices take" in coded.note()
