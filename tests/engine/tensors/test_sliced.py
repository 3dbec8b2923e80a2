"""Weights with whole rows and columns removed."""

import torch

from engine.tensors.sliced import SlicedWeight
from tests.matrices import normal


def test_remaining_weights_keep_their_positions():
    whole, rows, columns = normal(5, 7), torch.tensor([0, 3]), torch.tensor([1, 2, 6])
    stored = SlicedWeight((5, 7), whole[rows][:, columns], rows, columns)
    kept = torch.zeros(5, 7)
    kept[rows[:, None], columns] = 1
    assert torch.equal(stored.to_dense(), whole * kept)
    assert stored.nbytes == 4 * 2 * 3, "zeros take no bytes"
