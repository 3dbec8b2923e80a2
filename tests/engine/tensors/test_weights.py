"""Packed weights, and that their bytes are counted correctly."""

import json
from functools import cache

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models.packed_folder import file_bytes
from engine.techniques.implementations import compress, predicted_bytes, storage_plan
from engine.tensors.weights import DenseWeight, weight_from_settings
from tests.cases import for_each
from tests.techniques import EVERY, technique_id

SHAPES = [(48, 172), (33, 352), (7, 13), (1, 5)]
# floating-point numbers of 16 bits and more; their levels are not listed
TOO_MANY_LEVELS = {f"float-{name}-channel" for name in ("bfloat16", "float16", "float64")}
each_technique = for_each("config", EVERY, ids=technique_id)


def weight_of(shape) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@cache
def stored_weight(config, shape):
    """A compressed weight, shared by all tests that only read it."""
    return compress(config, weight_of(shape))


def shapes_and_dtypes(stored) -> dict:
    return {name: (value.shape, value.dtype) for name, value in stored.tensors().items()}


@for_each("shape", SHAPES, ids=str)
@each_technique
def test_the_storage_plan_is_what_is_stored_in_every_byte(config, shape):
    stored, plan = stored_weight(config, shape), storage_plan(config, shape)
    assert plan.settings() == stored.settings() and shapes_and_dtypes(plan) == shapes_and_dtypes(
        stored
    )
    assert (
        predicted_bytes(config, shape)
        == stored.nbytes
        == sum(value.nbytes for value in stored.tensors().values())
    )


@each_technique
def test_the_ledger_adds_up(config):
    stored = stored_weight(config, (33, 352))
    assert sum(stored.byte_breakdown().values()) == stored.nbytes and all(
        part and size > 0 for part, size in stored.byte_breakdown().items()
    )


@for_each("shape", SHAPES, ids=str)
@each_technique
def test_settings_and_tensors_are_all_there_is_to_a_stored_weight(config, shape):
    stored = stored_weight(config, shape)
    again = weight_from_settings(
        json.loads(json.dumps(stored.settings())),
        {name: value.clone() for name, value in stored.tensors().items()},
    )
    assert again.settings() == stored.settings() and torch.equal(
        again.to_dense(), stored.to_dense()
    )


@each_technique
def test_dense_has_the_shape_and_comes_anew_each_time(config):
    stored = stored_weight(config, (7, 13))
    first = stored.to_dense()
    first.zero_()
    assert stored.to_dense().shape == (7, 13) and stored.to_dense().any()


@each_technique
def test_the_weight_that_is_compressed_stays_as_it_was(config):
    weight = weight_of((33, 352))
    compress(config, weight)
    assert torch.equal(weight, weight_of((33, 352)))


@each_technique
def test_a_weight_of_zeros_stays_zero(config):
    assert not compress(config, torch.zeros(6, 40)).to_dense().any()


@each_technique
def test_levels_are_values_that_a_weight_takes(config):
    stored = stored_weight(config, (1, 5))
    one_scale = all(
        value.numel() == 1 for name, value in stored.tensors().items() if name.endswith("scales")
    )
    if one_scale and len(stored.levels()):  # then these are its levels
        assert all(
            (stored.levels() - value).abs().min() < 1e-3 for value in stored.to_dense().flatten()
        )


@each_technique
def test_every_weight_sits_on_one_of_the_levels(config):
    stored = stored_weight(config, (33, 352))
    levels, counts = stored.levels(), stored.level_counts()
    assert len(levels) == len(counts) and (levels.diff() >= 0).all()
    assert counts.sum() == (0 if technique_id(config) in TOO_MANY_LEVELS else 33 * 352)


def test_a_16_bit_weight_kept_as_it_is_has_16_bits():
    for dtype in (torch.bfloat16, torch.float16):
        stored = DenseWeight((48, 172), weight_of((48, 172)).to(dtype))
        assert stored.nbytes * 8 / (48 * 172) == 16.0 and stored.byte_breakdown() == {
            "dense weights": 2 * 48 * 172
        }


names = st.text(min_size=1, max_size=12).filter(
    lambda name: "\0" not in name and name.isprintable()
)
plain = st.dictionaries(
    names,
    st.builds(
        torch.zeros,
        st.lists(st.integers(0, 12), max_size=3),
        dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int64]),
    ),
)


@settings(max_examples=40)
@given(
    st.dictionaries(names, st.tuples(st.sampled_from(EVERY), st.sampled_from(SHAPES)), max_size=4),
    plain,
)
def test_the_size_of_a_file_is_known_before_it_is_written(tmp_path_factory, layers, plain):
    from safetensors.torch import save_file

    from engine.models.packed_folder import packed_metadata, packed_tensors

    stored = {name: compress(config, weight_of(shape)) for name, (config, shape) in layers.items()}
    path = tmp_path_factory.mktemp("file") / "model.safetensors"
    save_file(packed_tensors(stored, plain), path, metadata=packed_metadata(stored))
    plans = {name: storage_plan(config, shape) for name, (config, shape) in layers.items()}
    assert file_bytes(stored, plain) == file_bytes(plans, plain) == path.stat().st_size
