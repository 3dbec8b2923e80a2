"""Masks within a layer and over all of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from engine.techniques.pruning.masks import keep_mask, layer_shares
from engine.techniques.pruning.unstructured.config import (
    Magnitude,
)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.77])
def test_magnitude_of_all_layers_is_torchs_global_l1(sparsity):
    layers = {f"layer{i}": nn.Linear(30 + 10 * i, 8 + i, bias=False) for i in range(4)}
    with torch.no_grad():
        layers["layer2"].weight.mul_(0.6)
    weights = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    prune.global_unstructured(
        [(layer, "weight") for layer in layers.values()], prune.L1Unstructured, amount=sparsity
    )
    shares = layer_shares(
        lambda name: weights[name].abs(),
        {name: weight.numel() for name, weight in weights.items()},
        sparsity,
    )
    for name, layer in layers.items():
        assert torch.equal(
            keep_mask(
                weights[name].abs(), Magnitude().model_copy(update={"sparsity": shares[name]})
            ),
            layer.weight_mask.bool(),
        )


@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 0.5, 0.5, 1.0, 1e-20, 3e7]), min_size=1, max_size=30),
        min_size=1,
        max_size=5,
    ),
    st.floats(0, 0.99),
)
def test_a_global_budget_is_met_to_the_weight_also_among_equal_scores(scores, sparsity):
    scores = {str(i): torch.tensor(row) for i, row in enumerate(scores)}
    total = sum(map(len, scores.values()))
    shares = layer_shares(
        scores.__getitem__, {name: len(row) for name, row in scores.items()}, sparsity
    )
    counts = {name: round(shares[name] * len(row)) for name, row in scores.items()}
    assert sum(counts.values()) == round(sparsity * total)
    smallest = torch.cat(list(scores.values())).sort().values[: sum(counts.values())].double().sum()
    gone = sum(row.sort().values[: counts[name]].double().sum() for name, row in scores.items())
    assert gone == pytest.approx(float(smallest))
