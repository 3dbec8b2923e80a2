"""Files of stored layers: their bytes are known beforehand, and they are read as they were
written.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import PlainError
from engine.models.packed_folder import (
    DTYPES,
    explain_write_errors,
    file_bytes,
    read_file,
    write_file,
)
from engine.techniques.implementations import compress
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.tensors.weights import DenseWeight, StoredWeight
from tests.matrices import normal

names = st.text('abcö."', min_size=1, max_size=8).filter(lambda name: ".weight." not in name)


def layer(bits: int) -> StoredWeight:
    weight = normal(6, 40)
    return compress(RoundToNearest(bits=bits), weight) if bits else DenseWeight((6, 40), weight)


@settings(max_examples=30)
@given(
    st.dictionaries(names.map("layer-{}".format), st.sampled_from([0, 2, 3, 8]), max_size=3),
    st.dictionaries(
        names.map("plain-{}".format),
        st.tuples(st.sampled_from(list(DTYPES)), st.integers(0, 5)),
        max_size=4,
    ),
)
def test_a_file_has_the_bytes_that_were_predicted(tmp_path_factory, bits, plain):
    path = tmp_path_factory.mktemp("file") / "model.safetensors"
    layers = {name: layer(each) for name, each in bits.items()}
    tensors = {name: torch.zeros(size, dtype=dtype) for name, (dtype, size) in plain.items()}
    held = write_file(path, layers, tensors)
    assert file_bytes(layers, tensors) == path.stat().st_size
    assert held == sum(each.nbytes for each in layers.values()) + sum(
        each.nbytes for each in tensors.values()
    )


def test_layers_and_other_tensors_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "model.safetensors"
    layers = {"blocks.0.up": layer(3), "blocks.0.down": layer(0)}
    plain = {"blocks.0.norm.weight": torch.arange(5.0), "blocks.0.up.bias": torch.ones(6)}
    write_file(path, layers, plain)
    read_layers, read_plain = read_file(path)
    assert read_layers.keys() == layers.keys()
    for name, stored in layers.items():
        assert type(read_layers[name]) is type(stored)
        assert torch.equal(read_layers[name].to_dense(), stored.to_dense())
    assert read_plain.keys() == plain.keys()
    assert all(torch.equal(read_plain[name], value) for name, value in plain.items())


def test_equal_models_are_equal_files(tmp_path):
    for name in ("a", "b"):
        write_file(tmp_path / name, {"up": layer(4), "down": layer(2)}, {"norm": torch.ones(3)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(PlainError, match="cannot be written to") as refused,
        explain_write_errors(tmp_path / "file"),
    ):
        write_file(tmp_path / "file" / "model.safetensors", {"up": layer(4)}, {})
    assert repr(str(tmp_path / "file")) in str(refused.value)
