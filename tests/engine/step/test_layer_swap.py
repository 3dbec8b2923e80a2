"""Layers are swapped for a moment, and the model's answers with them."""

import pytest
import torch

from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.step.layer_swap import LayerSwap
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder
from engine.tensors.weights import DenseWeight
from tests.recipes import recipe_for
from tests.tiny import tiny

CPU = torch.device("cpu")


@pytest.fixture
def swap(tmp_path) -> LayerSwap:
    folder = tiny("llama-tied", tmp_path / "model")
    recipe = recipe_for("llama-tied", folder, tmp_path / "data")
    source = resolve_model(str(folder))
    ids = torch.arange(5, 53).view(4, 12)
    batches = [{"input_ids": ids[:3]}, {"input_ids": ids[3:]}]
    original = load_model(source, CPU, torch.float32)
    return LayerSwap(RunContext(recipe, source), original, batches, TableBuilder())


def doubled(swap: LayerSwap, name: str) -> DenseWeight:
    weight = 2 * swap.weight_of(name)
    return DenseWeight(tuple(weight.shape), weight)


def test_the_original_is_back_after_a_swap_also_after_an_error(swap):
    name = swap.original.layers[-2].name
    module, before = swap.original.model.get_submodule(name), swap.weight_of(name)
    with pytest.raises(RuntimeError), swap.swap_layers({name: doubled(swap, name)}):
        assert torch.equal(swap.weight_of(name), 2 * before)
        raise RuntimeError
    assert torch.equal(module.stored.to_dense(), before)


def test_tied_layers_are_swapped_together(swap):
    tied, before = ("model.embed_tokens", "lm_head"), swap.weight_of("lm_head")
    with swap.swap_layers({tied[0]: doubled(swap, tied[0])}):
        assert all(torch.equal(swap.weight_of(name), 2 * before) for name in tied)
    assert all(torch.equal(swap.weight_of(name), before) for name in tied)


def test_the_divergence_is_kl_and_zero_where_nothing_changes(swap):
    name = "model.layers.1.mlp.down_proj"
    weight = swap.weight_of(name)
    same = DenseWeight(tuple(weight.shape), weight)
    assert swap.divergence({name: same}) == pytest.approx(0, abs=1e-6)
    changed, parts = doubled(swap, name), []
    for batch in swap.batches:
        with torch.no_grad():
            before = swap.original.model(**batch).logits.log_softmax(-1)
            with swap.swap_layers({name: changed}):
                after = swap.original.model(**batch).logits.log_softmax(-1)
        pointwise = torch.nn.functional.kl_div(after, before, log_target=True, reduction="none")
        parts.append(pointwise.sum(-1).flatten())
    assert swap.divergence({name: changed}) == pytest.approx(torch.cat(parts).mean().item())


@pytest.mark.parametrize("examples", [1, 2, 3, 4, 9])
def test_the_first_examples_are_taken_across_batches(swap, examples):
    cut = torch.cat([batch["input_ids"] for batch in swap.with_first_examples(examples).batches])
    whole = torch.cat([batch["input_ids"] for batch in swap.batches])
    assert torch.equal(cut, whole[:examples])
