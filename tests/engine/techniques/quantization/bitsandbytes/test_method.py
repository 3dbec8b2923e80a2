"""The formats of bitsandbytes, held against the library itself."""

import bitsandbytes.functional as library
import pytest
import torch

from engine.techniques.implementations import compress
from engine.techniques.quantization.bitsandbytes.config import BitsAndBytes
from engine.tensors.blockwise import FP4, NESTED_BLOCK, NF4, dynamic_map
from tests.cases import for_each
from tests.goldens import golden
from tests.techniques import FOUR_BIT, INT8, technique_id

SHAPES = [(48, 172), (33, 352), (7, 13), (1, 5), (64, 1024)]
each_format = for_each("config", FOUR_BIT, ids=technique_id)
each_shape = for_each("shape", SHAPES, ids=str)


def normal(shape) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def reference_codes(weight, config):
    return library.quantize_4bit(
        weight,
        blocksize=config.block_size,
        quant_type=config.format,
        compress_statistics=config.double_quantization,
    )


def relative_error(config, weight) -> float:
    return ((compress(config, weight).to_dense() - weight).norm() / weight.norm()).item()


@each_shape
@each_format
def test_codes_and_absmax_are_the_librarys(config, shape):
    stored, (codes, state) = compress(config, normal(shape)), reference_codes(normal(shape), config)
    assert torch.equal(stored.codes, codes.flatten()) and torch.equal(stored.absmax, state.absmax)
    if config.double_quantization:
        assert (
            torch.equal(stored.nested_absmax, state.state2.absmax) and stored.offset == state.offset
        )
        assert (
            torch.equal(dynamic_map(), state.state2.code) and state.state2.blocksize == NESTED_BLOCK
        )


@each_shape
@each_format
def test_dense_is_what_the_library_makes_of_it_in_one_row(config, shape):
    # in one row the library is right, whatever the width
    codes, state = reference_codes(normal(shape).reshape(1, -1), config)
    reference = library.dequantize_4bit(codes, state).view(shape)
    torch.testing.assert_close(
        compress(config, normal(shape)).to_dense(), reference, rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize(("format", "table"), [("nf4", NF4), ("fp4", FP4)])
def test_levels_are_the_librarys(format, table):
    assert torch.equal(library.get_4bit_type(format, device="cpu"), torch.tensor(table))


@for_each(("format", "due"), [("nf4", 0.092), ("fp4", 0.122)])
@for_each("width", [172, 352, 1000, 1024])
def test_bell_shaped_weights_lose_what_is_published(format, due, width):
    assert relative_error(BitsAndBytes(format=format), normal((1000, width))) == pytest.approx(
        due, abs=0.001
    )


def test_double_quantization_costs_little_quality():
    weight = normal((512, 1024))
    once, twice = (
        relative_error(BitsAndBytes(double_quantization=double), weight) for double in (False, True)
    )
    assert once < twice < 1.01 * once


def test_bits_per_weight_are_those_of_the_paper():
    once, twice = (
        compress(BitsAndBytes(double_quantization=double), normal((1024, 1024))).nbytes * 8 / 2**20
        for double in (False, True)
    )
    assert once == 4.5 and twice == pytest.approx(4.127, abs=0.0005)


@each_shape
def test_int8_is_codes_times_absmax_over_127(shape):
    weight = normal(shape)
    codes, absmax, _ = library.int8_vectorwise_quant(weight.half())
    stored = compress(INT8, weight)
    assert torch.equal(stored.codes, codes) and torch.equal(stored.absmax, absmax)
    torch.testing.assert_close(stored.to_dense(), codes * absmax[:, None] / 127, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        stored.to_dense(), library.int8_vectorwise_dequant(codes, absmax), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("size", [1e-9, 1e6])
def test_int8_works_beyond_the_range_of_float16(size):
    assert relative_error(INT8, normal((16, 352)) * size) == pytest.approx(
        relative_error(INT8, normal((16, 352))), rel=0.01
    )


@for_each("config", [*FOUR_BIT, INT8], ids=technique_id)
def test_a_block_of_zeros_next_to_others_stays_zero(config):
    weight = normal((4, 1024))
    weight[1:3] = 0
    result = compress(config, weight).to_dense()
    assert result.isfinite().all()
    if config.format == "int8" or not config.double_quantization:
        assert not result[1:3].any() and result[0].any()


@pytest.mark.parametrize("format", ["nf4", "fp4"])
def test_four_bit_codes_and_absmax_are_those_of_the_library_that_made_the_golden(format):
    due = golden("bitsandbytes")
    once, twice = (
        compress(BitsAndBytes(format=format, double_quantization=double), due["weight"].float())
        for double in (False, True)
    )
    assert torch.equal(once.codes, due[f"{format}.codes"]) and torch.equal(
        once.absmax, due[f"{format}.absmax"]
    )
    assert torch.equal(twice.absmax, due[f"{format}-double.absmax"]) and torch.equal(
        twice.nested_absmax, due[f"{format}-double.nested"]
    )
    assert torch.equal(twice.offset, due[f"{format}-double.offset"])


def test_int8_codes_and_absmax_are_those_of_the_library_that_made_the_golden():
    due = golden("bitsandbytes")
    stored = compress(BitsAndBytes(format="int8"), due["weight"].float())
    assert torch.equal(stored.codes, due["int8.codes"]) and torch.equal(
        stored.absmax, due["int8.absmax"]
    )
