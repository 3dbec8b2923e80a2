"""AWQ against rounding."""

import pytest

from engine.calibration import Fold
from engine.techniques.implementations import compress, input_scales, storage_plan
from engine.techniques.quantization.awq.config import AWQ
from engine.techniques.quantization.awq.method import summed_output_error
from tests.cases import for_each
from tests.quantization import SHAPES, output_loss, rows_of, seen_of, weight_of


@for_each("shape", SHAPES, ids=str)
@for_each("scheme", ["symmetric", "asymmetric"])
@for_each("size", [0, 32, 100])
def test_awq_is_stored_as_planned_and_loses_less_than_rounding(shape, scheme, size):
    config, weight, seen = (
        AWQ(bits=3, group_size=size, scheme=scheme),
        weight_of(shape),
        seen_of(rows_of(shape[1])),
    )
    scales, searched = input_scales(config, Fold("", ()), [weight], seen)
    stored = compress(config, weight * scales, seen.divided_by(scales))
    assert (
        storage_plan(config, shape).nbytes == stored.nbytes
        and storage_plan(config, shape).settings() == stored.settings()
    )
    plain = output_loss(compress(config.rounding(), weight), weight, seen)
    assert searched[0] == (0.0, pytest.approx(plain, rel=1e-3))
    assert summed_output_error(stored.to_dense() / scales - weight, seen) < plain


def test_the_scales_follow_the_strength_of_the_inputs():
    seen = seen_of(rows_of(172))
    scales, searched = input_scales(AWQ(bits=3), Fold("", ()), [weight_of((24, 172))], seen)
    order = seen.abs_mean.argsort()
    assert (scales[order].diff() >= -1e-6).all() and scales.max() > scales.min()
    assert min(error for _, error in searched) < searched[0][1] and len(searched) == AWQ().steps
