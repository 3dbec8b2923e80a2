"""Samples of what flows into layers."""

import pytest
import torch
from torch import nn

from engine.measurement.inputs import EXAMPLES, evenly_spaced_examples, sampled_vectors
from tests.cases import for_each


@for_each("sizes", [[1], [3, 5], [8], [100], [7, 30, 1, 60]], ids=str)
def test_examples_are_evenly_spaced_over_all_batches(sizes):
    whole = torch.arange(sum(sizes))
    batches = [{"rows": part} for part in whole.split(sizes)]
    few = torch.cat([batch["rows"] for batch in evenly_spaced_examples(batches)])
    assert min(EXAMPLES, len(whole)) <= len(few) < 2 * EXAMPLES
    assert few[0] == 0 and few.diff().unique().numel() <= 1


@pytest.mark.parametrize("count", [1, 5, 40, 99])
def test_vectors_are_evenly_spaced_and_no_more_than_there_are(count):
    inputs = torch.arange(40.0).view(4, 10, 1)
    vectors = sampled_vectors(nn.Identity(), inputs, count).flatten()
    assert len(vectors) == min(count, 40) and vectors[0] == 0
    assert count == 1 or (vectors[-1] == 39 and vectors.diff().max() - vectors.diff().min() <= 1)


def test_an_outlier_beyond_float16_is_kept():
    inputs = torch.tensor([[1e6, 1.0]])
    assert torch.equal(sampled_vectors(nn.Identity(), inputs, 1), inputs)
    assert sampled_vectors(nn.Identity(), inputs / 100, 1).dtype == torch.float16
