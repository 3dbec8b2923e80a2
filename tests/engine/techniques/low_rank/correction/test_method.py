"""A low-rank correction of rounded weights."""

import pytest
import torch

from engine.techniques.implementations import compress
from engine.techniques.low_rank.correction.config import LowRankCorrection
from engine.techniques.quantization.awq.method import summed_output_error
from engine.tensors.low_rank import (
    CorrectedWeight,
)
from tests.low_rank import seen_of, weight_of


def test_a_correction_is_the_nearest_matrix_to_what_rounding_lost():
    weight, config = (
        weight_of(48, 64),
        LowRankCorrection(whitening="none", rank=6, order="quantize-first"),
    )
    stored = compress(config, weight)
    lost = weight - compress(config.rounding(), weight).to_dense()
    assert isinstance(stored, CorrectedWeight) and (
        weight - stored.to_dense()
    ).norm() == pytest.approx(torch.linalg.svdvals(lost)[6:].norm().item(), rel=1e-4)


def test_with_data_a_correction_loses_less_of_the_output():
    weight, seen = weight_of(48, 64), seen_of(64, 400)
    plain, white = (
        compress(LowRankCorrection(whitening=each), weight, seen).to_dense()
        for each in ("none", "svd-llm")
    )
    rounded = compress(LowRankCorrection().rounding(), weight).to_dense()
    losses = [summed_output_error(each - weight, seen) for each in (white, plain, rounded)]
    assert losses[0] < 0.8 * losses[1] < losses[1] < losses[2]


@pytest.mark.parametrize("order", ["quantize-first", "low-rank-first"])
def test_each_correction_lowers_what_its_rounding_left(order):
    weight = weight_of(48, 64)
    for turns in (1, 3, 10):
        stored = compress(LowRankCorrection(whitening="none", order=order, turns=turns), weight)
        assert (weight - stored.to_dense()).norm() < (weight - stored.base.to_dense()).norm()


def test_more_bits_and_more_directions_lose_less():
    weight = weight_of(48, 64)
    errors = [
        (
            compress(LowRankCorrection(whitening="none", bits=bits, rank=rank), weight).to_dense()
            - weight
        ).norm()
        for bits, rank in ((2, 4), (2, 16), (4, 16))
    ]
    assert errors == sorted(errors, reverse=True)
