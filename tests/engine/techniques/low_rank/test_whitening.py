import pytest
import torch

from engine.techniques.implementations import compress
from engine.techniques.low_rank.svd.config import SVD
from engine.techniques.low_rank.whitening import whitening
from tests.low_rank import seen_of, weight_of


def test_the_whitened_singular_values_left_out_are_what_the_output_loses():
    weight, seen = weight_of(), seen_of()
    config = SVD(by="rank", rank=10, damping=1e-6)
    left_out = torch.linalg.svdvals(whitening(config, seen).whiten(weight))[10:].square().sum()
    lost = compress(config, weight, seen).to_dense() - weight
    assert ((lost @ (seen.gram / seen.count)) * lost).sum() == pytest.approx(
        left_out.item(), rel=1e-2
    )
