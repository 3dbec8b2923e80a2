"""Factors that learn on after a decomposition: gradients reach all of them, what is written is what
has learned, and it helps.
"""

import pytest
import torch

from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.recipe.model_names import BUNDLED_MODELS
from engine.techniques.low_rank.tensor_decomposition.recovery import TrainableFactors
from engine.tensors.low_rank import CPKernel, LowRankWeight, TuckerKernel
from engine.tensors.weights import DenseWeight
from tests.answers import forecast
from tests.recipes import recipe_for
from tests.tiny import tiny

SHORT = {"recovery": 4, "batch": 4, "rate": 1e-2}


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    return tiny("resnet", tmp_path_factory.mktemp("resnet"))


@pytest.fixture
def run_step(resnet, tmp_path):
    return lambda technique, **options: run(
        recipe_for("resnet", resnet, tmp_path / "data", {"technique": technique, **options})
    )


def dense(*shape: int) -> DenseWeight:
    return DenseWeight(
        shape, torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    )


@pytest.mark.parametrize(
    "stored",
    [
        LowRankWeight((6, 36), dense(6, 3), dense(3, 36)),
        TuckerKernel((6, 36), 3, 3, dense(6, 2), dense(2, 27), dense(3, 4)),
        CPKernel((6, 36), dense(6, 5), dense(5, 4), dense(5, 3), dense(5, 3)),
    ],
    ids=lambda stored: stored.kind,
)
def test_factors_stand_for_their_weight_and_slopes_reach_each_of_them(stored):
    factors = TrainableFactors(stored, torch.Size((6, 4, 3, 3)))
    made = factors(torch.empty(6, 4, 3, 3))
    assert torch.equal(made, stored.to_dense().view(6, 4, 3, 3))
    made.square().sum().backward()
    assert all(factor.grad.abs().sum() > 0 for factor in factors.learning.values())
    assert torch.equal(factors.stored_factors(stored).to_dense(), stored.to_dense())


@pytest.mark.parametrize("technique", ["tucker", "cp"])
def test_at_a_rate_of_nothing_the_decomposition_stays_as_it_is(technique, run_step):
    recovered, other = run_step(technique, **SHORT | {"rate": 0}), run_step(technique)
    assert (
        recovered.summary.result.loss == other.summary.result.loss
        and recovered.summary.result.size_bytes == other.summary.result.size_bytes
    )


@pytest.mark.parametrize("technique", ["tucker", "cp"])
def test_training_moves_the_factors_and_takes_no_more_bytes(technique, run_step, kept_last):
    recovered, other = run_step(technique, **SHORT), run_step(technique)
    assert (
        recovered.summary.result.loss != other.summary.result.loss
        and recovered.summary.result.size_bytes == other.summary.result.size_bytes
    )
    curves = recovered.tables.curves
    assert curves[curves.name == "loss"].step.tolist() == [1, 2, 3, 4] and curves[
        curves.name == "accuracy"
    ].step.tolist() == [0, 1, 2, 3, 4]
    assert other.tables.curves.empty


def test_runs_repeat_to_the_bit(run_step):
    one, other = (
        curves[curves.name != "examples per second"]
        for curves in (run_step("cp", **SHORT).tables.curves for _ in range(2))
    )
    assert one.equals(other)


@pytest.mark.usefixtures("bytes_alone")
def test_its_forecast_has_the_bytes_to_one(resnet, tmp_path):
    recipe = recipe_for("resnet", resnet, tmp_path / "data", {"technique": "tucker", **SHORT})
    assert forecast(recipe).size_bytes == run(recipe).summary.result.size_bytes


@pytest.mark.parametrize("technique", ["tucker", "cp"])
def test_a_network_cut_to_a_quarter_learns_digits_again(technique):
    def accuracy(recovery: int) -> float:
        step = {"technique": technique, "kept": 0.15, "recovery": recovery, "rate": 3e-3}
        recipe = {
            "model": "bundled:digits-cnn",
            "task": BUNDLED_MODELS["digits-cnn"].task.model_dump(),
            "device": "cpu",
            "speed": False,
        }
        return run(Recipe.from_dict(recipe | {"steps": [step]})).summary.result.accuracy

    assert accuracy(60) > accuracy(0) + 0.1
