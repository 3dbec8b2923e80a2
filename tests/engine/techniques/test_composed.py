"""Several steps on one layer."""

import pytest
import torch

from engine.techniques.composed import compress_further, storage_plan_of_steps
from engine.techniques.implementations import compress
from engine.techniques.low_rank.svd.config import SVD
from engine.techniques.pruning.unstructured.config import Magnitude
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.tensors.low_rank import LowRankWeight
from tests.cases import for_each
from tests.matrices import normal

ROUNDING = RoundToNearest(bits=4, group_size=32)
LOW_RANK = SVD(by="rank", rank=6, whitening="none", scope="layer")


@pytest.mark.parametrize("keep_zeros", [True, False])
def test_zeros_stay_zero_where_they_are_kept_and_the_rest_is_rounded_as_alone(keep_zeros):
    weight = normal(24, 64)
    weight[normal(24, 64, seed=1) > 0] = 0.0
    pruned = compress(Magnitude(sparsity=0.0), weight)
    stored = compress_further(ROUNDING, pruned, weight, None, keep_zeros).to_dense()
    alone = compress(ROUNDING, weight).to_dense()
    assert torch.equal(stored[weight != 0], alone[weight != 0])
    assert (stored[weight == 0] == 0).all() or not keep_zeros


def test_factors_are_rounded_each_by_itself():
    factored = compress(LOW_RANK, normal(24, 64))
    assert isinstance(factored, LowRankWeight)
    both = compress_further(ROUNDING, factored, factored.to_dense(), None, keep_zeros=True)
    for name, part in factored.parts().items():
        due = compress(ROUNDING, part.to_dense()).to_dense()
        assert torch.equal(both.parts()[name].to_dense(), due)


@for_each("first", [LOW_RANK, Magnitude(sparsity=0.5), Magnitude(pattern="2:4")])
def test_the_plan_of_two_steps_has_the_bytes_of_what_they_store(first):
    weight = normal(24, 64)
    current = compress(first, weight)
    stored = compress_further(ROUNDING, current, current.to_dense(), None, keep_zeros=True)
    assert storage_plan_of_steps([first, ROUNDING], (24, 64)).nbytes == stored.nbytes
