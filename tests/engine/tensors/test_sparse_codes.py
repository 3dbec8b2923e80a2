"""Quantized weights that keep their zeros."""

import json

import torch

from engine.techniques.composed import compress_further, storage_plan_of_steps
from engine.techniques.implementations import compress
from engine.techniques.pruning.unstructured.config import Magnitude
from engine.tensors.sparse_codes import SparseCodesWeight, preserve_zeros
from engine.tensors.weights import weight_from_settings
from tests.cases import for_each
from tests.techniques import EVERY, HUFFMAN, technique_id

each_quantizer = for_each("config", [*EVERY, *HUFFMAN], ids=technique_id)


def half_zero(out: int = 24, in_: int = 41) -> torch.Tensor:
    weight = torch.randn(out, in_, generator=torch.Generator().manual_seed(4))
    return weight.masked_fill(weight.abs() < 0.7, 0)


@each_quantizer
def test_zeros_stay_zero_and_the_rest_is_as_without_them(config):
    weight = half_zero()
    plain = compress(config, weight)
    pair = compress_further(config, compress(Magnitude(), weight), weight, None, keep_zeros=True)
    zeros = weight == 0
    assert not pair.to_dense()[zeros].any() and torch.equal(
        pair.to_dense()[~zeros], plain.to_dense()[~zeros]
    )
    assert pair.nbytes <= plain.nbytes + -(-weight.numel() // 8)


@each_quantizer
def test_settings_and_tensors_are_all_there_is_to_a_pair(config):
    pair = preserve_zeros(compress(config, half_zero()), half_zero() == 0)
    again = weight_from_settings(
        json.loads(json.dumps(pair.settings())),
        {name: value.clone() for name, value in pair.tensors().items()},
    )
    assert (
        torch.equal(again.to_dense(), pair.to_dense())
        and sum(pair.byte_breakdown().values()) == pair.nbytes
    )
    assert len(pair.levels()) == len(pair.level_counts()) or not len(pair.level_counts())


def test_codes_of_zeros_are_not_stored():
    weight = half_zero(64, 128)
    config, left = (
        EVERY[0].model_copy(update={"bits": 4, "granularity": "group", "group_size": 32}),
        int((weight != 0).sum()),
    )
    pair, plain = preserve_zeros(compress(config, weight), weight == 0), compress(config, weight)
    assert isinstance(pair, SparseCodesWeight) and int(pair.level_counts().sum()) == left
    assert plain.nbytes - pair.nbytes == weight.numel() // 2 - weight.numel() // 8 - -(-left // 2)


@each_quantizer
def test_the_forecast_of_a_pair_is_what_is_stored_in_every_byte(config):
    weight = torch.randn(24, 41, generator=torch.Generator().manual_seed(5))
    first = Magnitude(sparsity=0.6)
    held = compress(first, weight)
    pair, plan = (
        compress_further(config, held, held.to_dense(), None, keep_zeros=True),
        storage_plan_of_steps([first, config], (24, 41)),
    )
    if any(part.kind == "masked" for part in (pair, *pair.parts().values())) or config in HUFFMAN:
        # without a level for zero where nothing can be left out: a mask more, and bytes that depend
        # on the weights
        return
    assert plan.settings() == pair.settings()
    assert {name: (value.shape, value.dtype) for name, value in plan.tensors().items()} == {
        name: (value.shape, value.dtype) for name, value in pair.tensors().items()
    }
