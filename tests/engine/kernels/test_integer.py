"""Integer products equal the simulation."""

import pytest
import torch
from torch import nn

from engine.kernels import integer
from tests.cases import for_each
from tests.stored_layers import (
    INTEGER,
    difference,
    inputs_of,
    kernel_or_skip,
    linear_layer,
    name,
    stored_layer,
)


@for_each("fields", INTEGER, ids=name)
def test_inputs_beyond_what_was_seen_are_clipped_or_set_apart_as_in_the_simulation(fields):
    layer = stored_layer(fields, linear_layer(), inputs_of(3, 9, 96))
    kernel = kernel_or_skip(layer)
    assert difference(kernel, layer, 3 * inputs_of(2, 5, 96).flip(-1)) < kernel.tolerance


@pytest.mark.parametrize("fields", [INTEGER[0], INTEGER[1], INTEGER[3]], ids=name)
def test_an_integer_convolution_equals_the_simulation(fields):
    torch.manual_seed(0)
    layer, images = nn.Conv2d(8, 12, 3, stride=2, padding=1), inputs_of(5, 8, 11, 11)
    stored = stored_layer(fields, layer, images)
    kernel = kernel_or_skip(stored)
    assert difference(kernel, stored, images) < kernel.tolerance


@pytest.mark.parametrize("wrong", [True, False])
def test_codes_go_in_halves_exactly_where_the_processor_overflows(wrong, monkeypatch):
    monkeypatch.setattr(integer, "int8_products_overflow", lambda: wrong)
    codes = torch.arange(-127, 128, dtype=torch.int8).view(5, 51)
    parts = integer.overflow_free_parts(codes)
    assert len(parts) == 1 + wrong and torch.equal(sum(part.int() for part in parts), codes.int())
    assert not wrong or all(part.abs().max() <= integer.MAX_SAFE_CODE for part in parts)
    assert (
        len(integer.overflow_free_parts(codes.clamp(-integer.MAX_SAFE_CODE, integer.MAX_SAFE_CODE)))
        == 1
    )


def test_whole_numbers_at_full_range_are_multiplied_exactly():
    codes, inputs = (
        torch.full((16, 512), 127, dtype=torch.int8),
        torch.full((3, 512), 255, dtype=torch.uint8),
    )
    codes[::2] = -127
    product = integer.Int8MatrixProduct(codes, torch.ones(16))(inputs, 1.0, 0)
    assert torch.equal(product, inputs.float() @ codes.float().T)
