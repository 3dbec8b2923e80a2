import pytest
import torch

from engine.calibration import InputStats
from engine.techniques.pruning.sparsegpt.config import SparseGPT
from engine.techniques.pruning.unstructured.config import (
    Magnitude,
    OptimalBrainDamage,
    Taylor,
    Wanda,
)
from engine.techniques.pruning.unstructured.scores import comparable_between_layers, importance
from tests.pruning import slopes_like, weight_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("config", [Wanda(), SparseGPT()])
def test_among_layers_it_does_not_matter_how_loud_a_layers_inputs_are(config):
    quiet, loud = InputStats(40, CPU), InputStats(40, CPU)
    inputs = torch.randn(200, 40, generator=torch.Generator().manual_seed(7))
    quiet.add(inputs)
    loud.add(1000 * inputs)
    scores = [
        comparable_between_layers(config, importance(config, weight_of(), seen))
        for seen in (quiet, loud)
    ]
    torch.testing.assert_close(*scores)
    assert torch.equal(comparable_between_layers(Magnitude(), weight_of().abs()), weight_of().abs())


def test_the_slope_scores_are_the_papers():
    weight = weight_of()
    slopes = slopes_like(weight)
    torch.testing.assert_close(importance(Taylor(), weight, slopes), (slopes.mean * weight).abs())
    torch.testing.assert_close(
        importance(OptimalBrainDamage(), weight, slopes), 0.5 * slopes.square * weight**2
    )
