"""Every way of storing a sparse weight gives it back, with the bytes it is counted with."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.techniques.implementations import compress
from engine.techniques.pruning.masks import keep_mask
from engine.techniques.pruning.unstructured.config import (
    Magnitude,
)
from engine.tensors.sparse import CSR, Bitmask, NOfM, sparse_weight, storage_sizes_bytes
from engine.tensors.weights import weight_from_settings
from tests.cases import for_each
from tests.pruning import weight_of


@for_each("dtype", [torch.float32, torch.bfloat16])
@for_each("storage", ["dense", "bitmask", "csr", "n-of-m"])
@for_each("shape", [(24, 40), (3, 4), (7, 172)])
def test_every_way_of_storing_gives_the_weight_back_and_knows_its_bytes(shape, storage, dtype):
    config = Magnitude(pattern="2:4", storage=storage)
    weight = weight_of(*shape).to(dtype)
    weight = weight * keep_mask(weight.float().abs(), config)
    stored = sparse_weight(weight, storage, (2, 4))
    assert torch.equal(stored.to_dense(dtype), weight)
    assert (
        stored.nbytes
        == storage_sizes_bytes(shape, int(weight.count_nonzero()), weight.itemsize, (2, 4))[storage]
        == sum(stored.byte_breakdown().values())
    )
    again = weight_from_settings(stored.settings(), stored.tensors())
    assert torch.equal(again.to_dense(dtype), weight)


@given(st.integers(1, 9), st.integers(1, 70), st.floats(0, 1), st.integers(0, 99))
def test_any_weight_with_any_zeros_survives_every_way(out, in_, sparsity, seed):
    weight = weight_of(out, in_, seed) * (
        torch.rand(out, in_, generator=torch.Generator().manual_seed(seed + 1)) >= sparsity
    )
    for kind in (Bitmask, CSR):
        assert torch.equal(kind.of(weight).to_dense(), weight)


def test_zeros_that_were_there_before_fit_a_pattern_too():
    weight = torch.tensor([[0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0]])
    assert torch.equal(NOfM.of(weight, 2, 4).to_dense(), weight)


@for_each(
    ("asked", "kind"),
    [
        ({"sparsity": 0.05}, "dense"),
        ({"sparsity": 0.5}, "bitmask"),
        ({"sparsity": 0.99}, "csr"),
        ({"pattern": "2:4"}, "bitmask"),
    ],
)
def test_the_smallest_storage_is_chosen_by_default(asked, kind):
    weight = weight_of(64, 256)
    stored = compress(Magnitude(values="bfloat16", **asked), weight)
    assert stored.kind == kind and stored.nbytes == min(
        storage_sizes_bytes((64, 256), int(stored.to_dense().count_nonzero()), 2).values()
    )
