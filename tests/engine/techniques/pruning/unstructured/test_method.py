"""Which weights are pruned, and what is left of the rest."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from engine.calibration import InputStats
from engine.errors import PlainError
from engine.models.layers import Layer
from engine.pipeline.run import run
from engine.techniques.implementations import compress, plan, storage_plan
from engine.techniques.pruning.options import Pruning
from engine.techniques.pruning.sparsegpt.config import SparseGPT
from engine.techniques.pruning.unstructured.config import (
    Magnitude,
    Random,
    Wanda,
)
from engine.techniques.pruning.unstructured.scores import importance
from tests.cases import for_each
from tests.goldens import PRUNED, golden, golden_stats
from tests.pruning import EVERY, given_to, weight_of
from tests.recipes import recipe_for
from tests.tiny import tiny

CPU = torch.device("cpu")


def pruned_weight(config: Pruning, weight: torch.Tensor) -> torch.Tensor:
    return compress(*given_to(config, weight)).to_dense()


@for_each("scope", ["row", "layer"])
@for_each("sparsity", [0.0, 0.25, 0.5, 0.9])
@for_each("method", EVERY)
def test_the_requested_number_is_removed(method, sparsity, scope):
    weight, config = weight_of(), method(sparsity=sparsity, scope=scope)
    zeros = (pruned_weight(config, weight) == 0).sum(1)
    if scope == "row":
        assert (zeros == round(sparsity * 40)).all()
    else:
        assert zeros.sum() == pytest.approx(sparsity * weight.numel(), abs=1)


@for_each(
    ("pattern", "kept", "of"),
    [("2:4", 2, 4), ("4:8", 4, 8), ("1:4", 1, 4), ("3:5", 3, 5), ("20:40", 20, 40)],
)
@for_each("method", EVERY)
def test_a_pattern_keeps_n_of_every_m_neighbours(method, pattern, kept, of):
    left = pruned_weight(method(pattern=pattern), weight_of()) != 0
    assert (left.unflatten(1, (-1, of)).sum(-1) == kept).all()


@for_each("method", EVERY)
def test_zero_sparsity_changes_nothing(method):
    weight = weight_of()
    assert torch.equal(pruned_weight(method(sparsity=0), weight), weight)


@for_each("method", [each for each in EVERY if each is not SparseGPT])
def test_what_stays_stays_as_it_was_and_matters_most(method):
    weight, config = weight_of(), method(sparsity=0.4, scope="layer")
    score, result = importance(*given_to(config, weight)), pruned_weight(config, weight)
    left = result != 0
    assert torch.equal(result[left], weight[left]) and score[left].min() >= score[~left].max()


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.77])
def test_magnitude_in_a_layer_is_torchs_l1(sparsity):
    layer = nn.Linear(40, 24, bias=False)
    due = prune.l1_unstructured(layer, "weight", sparsity).weight
    assert torch.equal(pruned_weight(Magnitude(sparsity=sparsity), layer.weight_orig.detach()), due)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.77])
def test_random_is_torchs_given_the_same_draw(sparsity, monkeypatch):
    """torch removes what draws the largest number, ours what draws the smallest."""
    layer, config = nn.Linear(40, 24, bias=False), Random(sparsity=sparsity, draw=3)
    monkeypatch.setattr(torch, "rand_like", lambda weight: 1 - importance(config, weight))
    due = prune.random_unstructured(layer, "weight", sparsity).weight
    assert torch.equal(pruned_weight(config, layer.weight_orig.detach()), due)


def test_wanda_with_equal_inputs_is_magnitude():
    weight, seen = weight_of(), InputStats(40, CPU, wants_gram=False)
    seen.add(torch.ones(10, 40) * torch.tensor([[1.0], [-1.0]]).repeat(5, 1))
    assert torch.equal(
        compress(Wanda(scope="layer"), weight, seen).to_dense(), pruned_weight(Magnitude(), weight)
    )


def test_wanda_spares_the_weights_behind_a_loud_input():
    weight, seen = weight_of(), InputStats(40, CPU, wants_gram=False)
    inputs = torch.randn(100, 40, generator=torch.Generator().manual_seed(4))
    inputs[:, 7] *= 1000
    seen.add(inputs)
    assert (compress(Wanda(sparsity=0.8), weight, seen).to_dense()[:, 7] != 0).all()


def test_random_draws_differ_by_number_and_by_layer_and_repeat():
    weight = weight_of()
    one, other = (plan(Random(draw=draw), LAYERS) for draw in (0, 1))
    masks = [pruned_weight(config, weight) != 0 for config in (*one.values(), *other.values())]
    assert all(not torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])
    assert torch.equal(pruned_weight(one["a"], weight), pruned_weight(one["a"], weight))


LAYERS = [Layer("a", "linear", (24, 40), 4, ""), Layer("b", "linear", (24, 40), 4, "")]


@for_each(
    "asked",
    [
        {},
        {"sparsity": 0.02},
        {"sparsity": 0.99},
        {"scope": "row"},
        {"pattern": "4:8"},
        {"pattern": "2:4", "storage": "n-of-m"},
    ],
)
@for_each("values", ["float32", "float16"])
@for_each("method", [Magnitude, SparseGPT])
def test_the_forecast_has_the_stored_bytes(method, values, asked):
    weight, config = weight_of(), method(values=values, **asked)
    assert storage_plan(config, (24, 40)).nbytes == compress(*given_to(config, weight)).nbytes


def test_what_is_left_has_the_files_number_format():
    half = Layer("a", "linear", (24, 40), 2, "", "bfloat16")
    config = plan(Magnitude(), [half])["a"]
    assert compress(config, weight_of().bfloat16().float()).values.dtype == torch.bfloat16


@for_each("method", EVERY)
def test_a_layer_of_zeros_stays_one(method):
    weight = torch.zeros(24, 40)
    assert not pruned_weight(method(), weight).any()


def test_a_run_that_would_empty_a_layer_names_it(tmp_path):
    model = tiny("resnet", tmp_path / "model", hidden_sizes=[12, 20])
    with pytest.raises(
        PlainError, match=r"^resnet\.\S+: No weight would be left; remove a smaller share"
    ):
        run(
            recipe_for(
                "resnet",
                model,
                tmp_path / "data",
                {"technique": "magnitude", "sparsity": 0.99, "scope": "row"},
            )
        )


def test_a_run_at_zero_sparsity_measures_the_original_again(tmp_path):
    outcome = run(
        recipe_for(
            "llama",
            tiny("llama", tmp_path / "model"),
            tmp_path / "data",
            {"technique": "sparsegpt", "sparsity": 0},
        )
    )
    assert outcome.summary.result.perplexity == outcome.summary.baseline.perplexity
    assert (outcome.tables.layers.relative_error.dropna() == 0).all() and (
        outcome.tables.storage.way[outcome.tables.storage.chosen] == "dense"
    ).all()


@for_each("name", PRUNED)
def test_wanda_keeps_llm_compressors_weights(name):
    due = golden("pruning")
    left = (
        compress(
            Wanda(scope="row", **PRUNED[name]),
            due["weight"].float(),
            golden_stats(due["inputs"][None], False),
        ).to_dense()
        != 0
    )
    differ = (left != due[f"wanda.{name}"]).sum(1)
    # of 76.8 weights a row we remove 77, they 76
    assert (differ <= 1).all() if name == "third" else not differ.any()
