"""Weights of which some columns are stored apart."""

import torch

from engine.tensors.outliers import MixedInt8, ScaledColumns, WithOutlierColumns, outlier_fields
from engine.tensors.weights import DenseWeight
from tests.matrices import normal

COLUMNS = torch.tensor([1, 4], dtype=torch.int32)


def test_columns_stored_apart_count_where_both_are_stored():
    weight, values = normal(3, 6), normal(3, 2, seed=1).half()
    stored = WithOutlierColumns((3, 6), DenseWeight((3, 6), weight), COLUMNS, values)
    others = [0, 2, 3, 5]
    assert torch.equal(stored.to_dense()[:, COLUMNS.long()], values.float())
    assert torch.equal(stored.to_dense()[:, others], weight[:, others])


def test_scaled_columns_are_divided_again():
    weight = normal(3, 6)
    scaled = weight.clone()
    scaled[:, COLUMNS.long()] *= 4
    stored = ScaledColumns((3, 6), DenseWeight((3, 6), scaled), COLUMNS, 4.0)
    torch.testing.assert_close(stored.to_dense(), weight)


def test_values_beyond_float16_are_kept_in_bfloat16():
    weight = normal(3, 6)
    assert outlier_fields(weight, COLUMNS.long())["values"].dtype == torch.float16
    weight[0, 4] = 1e6
    kept = outlier_fields(weight, COLUMNS.long())
    assert kept["values"].dtype == torch.bfloat16 and kept["values"].isfinite().all()


def test_inputs_at_the_threshold_and_of_outlier_columns_stay_as_they_are():
    stored = MixedInt8((3, 6), DenseWeight((3, 6), normal(3, 6)), COLUMNS, normal(3, 2).half())
    inputs = torch.tensor([[0.1, 0.123, 6.0, 1.0, 0.456, -0.5]])
    rounded = stored.quantized_inputs(inputs)
    kept = torch.tensor([False, True, True, False, True, False])
    assert torch.equal(rounded[0, kept], inputs[0, kept])
    steps = rounded[0, ~kept] * 127  # the largest of the others is 1
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
    torch.testing.assert_close(rounded, inputs, rtol=0, atol=0.5 / 127 + 1e-6)
