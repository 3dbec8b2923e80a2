"""Packed weights, and that their bytes are counted correctly."""

import json
from functools import cache

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models.packed_folder import file_bytes
from engine.techniques.implementations import blueprint, compress, predicted_bytes
from engine.tensors.weights import Dense, restored
from tests.cases import for_each
from tests.techniques import EVERY, named

SHAPES = [(48, 172), (33, 352), (7, 13), (1, 5)]
# floating-point numbers of 16 bits and more; their levels are not listed
TOO_MANY_LEVELS = {f"float-{name}-channel" for name in ("bfloat16", "float16", "float64")}
each_technique = for_each("how", EVERY, ids=named)


def weight_of(shape) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@cache
def stored_weight(how, shape):
    """A compressed weight, shared by all tests that only read it."""
    return compress(how, weight_of(shape))


def described(stored) -> dict:
    return {name: (value.shape, value.dtype) for name, value in stored.tensors().items()}


@for_each("shape", SHAPES, ids=str)
@each_technique
def test_the_blueprint_is_what_is_stored_in_every_byte(how, shape):
    stored, plan = stored_weight(how, shape), blueprint(how, shape)
    assert plan.settings() == stored.settings() and described(plan) == described(stored)
    assert (
        predicted_bytes(how, shape)
        == stored.nbytes
        == sum(value.nbytes for value in stored.tensors().values())
    )


@each_technique
def test_the_ledger_adds_up(how):
    stored = stored_weight(how, (33, 352))
    assert sum(stored.ledger().values()) == stored.nbytes and all(
        part and size > 0 for part, size in stored.ledger().items()
    )


@for_each("shape", SHAPES, ids=str)
@each_technique
def test_settings_and_tensors_are_all_there_is_to_a_stored_weight(how, shape):
    stored = stored_weight(how, shape)
    again = restored(
        json.loads(json.dumps(stored.settings())),
        {name: value.clone() for name, value in stored.tensors().items()},
    )
    assert again.settings() == stored.settings() and torch.equal(again.dense(), stored.dense())


@each_technique
def test_dense_has_the_shape_and_comes_anew_each_time(how):
    stored = stored_weight(how, (7, 13))
    first = stored.dense()
    first.zero_()
    assert stored.dense().shape == (7, 13) and stored.dense().any()


@each_technique
def test_the_weight_that_is_compressed_stays_as_it_was(how):
    weight = weight_of((33, 352))
    compress(how, weight)
    assert torch.equal(weight, weight_of((33, 352)))


@each_technique
def test_a_weight_of_zeros_stays_zero(how):
    assert not compress(how, torch.zeros(6, 40)).dense().any()


@each_technique
def test_levels_are_values_that_a_weight_takes(how):
    stored = stored_weight(how, (1, 5))
    one_scale = all(
        value.numel() == 1 for name, value in stored.tensors().items() if name.endswith("scales")
    )
    if one_scale and len(stored.levels()):  # then these are its levels
        assert all(
            (stored.levels() - value).abs().min() < 1e-3 for value in stored.dense().flatten()
        )


@each_technique
def test_every_weight_sits_on_one_of_the_levels(how):
    stored = stored_weight(how, (33, 352))
    levels, counts = stored.levels(), stored.occupancy()
    assert len(levels) == len(counts) and (levels.diff() >= 0).all()
    assert counts.sum() == (0 if named(how) in TOO_MANY_LEVELS else 33 * 352)


def test_a_16_bit_weight_kept_as_it_is_has_16_bits():
    for dtype in (torch.bfloat16, torch.float16):
        stored = Dense((48, 172), weight_of((48, 172)).to(dtype))
        assert stored.nbytes * 8 / (48 * 172) == 16.0 and stored.ledger() == {
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

    from engine.models.packed_folder import metadata_of, tensors_of

    stored = {name: compress(how, weight_of(shape)) for name, (how, shape) in layers.items()}
    path = tmp_path_factory.mktemp("file") / "model.safetensors"
    save_file(tensors_of(stored, plain), path, metadata=metadata_of(stored))
    plans = {name: blueprint(how, shape) for name, (how, shape) in layers.items()}
    assert file_bytes(stored, plain) == file_bytes(plans, plain) == path.stat().st_size
