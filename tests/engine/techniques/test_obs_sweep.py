"""Columns are corrected in halves of halves as they would be one after another."""

import pytest
import torch

from engine.calibration import InputStats
from engine.techniques.obs_sweep import ColumnSweep, hessian_factor
from tests.matrices import normal

CPU = torch.device("cpu")


class Rounding(ColumnSweep):
    """Rounds each column to whole numbers."""

    def process_block(self, begin: int, end: int) -> None:
        for column in range(begin, end):
            rounded = self.weight[column].round()
            self.errors[column] = (self.weight[column] - rounded) / self.factor[column, column]
            self.weight[column:end] -= self.factor[column, column:end, None] * self.errors[column]
            self.weight[column] = rounded


def stats(width: int, count: int = 400) -> InputStats:
    """Inputs of which many go together."""
    seen = InputStats(width, CPU)
    seen.add(normal(count, width) + 2 * normal(count, 3, seed=1) @ normal(3, width, seed=2))
    return seen


def column_by_column(weight: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Optimal Brain Surgeon as its formula states it, with the inverse made anew for each column,
    in float64.  (out, in_)
    """
    weight, hessian = weight.double().clone(), hessian.double()
    for column in range(weight.shape[1]):
        inverse = torch.linalg.inv(hessian[column:, column:])
        rounded = weight[:, column].float().round().double()
        error = (weight[:, column] - rounded) / inverse[0, 0]
        weight[:, column:] -= error[:, None] * inverse[0]
        weight[:, column] = rounded
    return weight


@pytest.mark.parametrize("width", [1, 31, 33, 100])
def test_halves_give_what_one_column_after_another_gives(width):
    seen, weight = stats(width), 4 * normal(7, width, seed=3)
    factor = hessian_factor(seen, 0.01)
    sweep = Rounding(weight.T.clone(), factor, torch.zeros(width, 7))
    sweep.process(0, width)
    mean = seen.gram.diagonal().mean() / seen.count
    hessian = seen.gram / seen.count + 0.01 * mean * torch.eye(width)
    due = column_by_column(weight, hessian)
    assert (sweep.weight.T.double() == due).float().mean() > 0.99
    before = weight.T
    torch.testing.assert_close(
        sweep.values_after(width, before), sweep.weight, rtol=1e-3, atol=1e-3
    )
    assert torch.equal(sweep.values_after(0, before), before)


def test_the_factor_is_that_of_the_inverse_hessian():
    seen = stats(40)
    factor = hessian_factor(seen, 0.1)
    mean = seen.gram.diagonal().mean() / seen.count
    hessian = seen.gram / seen.count + 0.1 * mean * torch.eye(40)
    assert torch.equal(factor, factor.triu())
    torch.testing.assert_close(
        factor.T @ factor, torch.linalg.inv(hessian.double()).float(), rtol=1e-3, atol=1e-4
    )
    assert hessian_factor(seen, 0.1) is factor, "made once"


def test_inputs_that_were_always_zero_are_named_and_do_no_harm():
    seen = InputStats(6, CPU)
    rows = normal(50, 6)
    rows[:, 2] = 0
    seen.add(rows)
    assert hessian_factor(seen, 0.01).isfinite().all()
    assert any("1 of 6 inputs were always zero" in warning for warning in seen.warnings)
