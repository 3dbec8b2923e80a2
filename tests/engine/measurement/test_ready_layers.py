"""Layers with dense weights in the precision in which they compute."""

import pytest
import torch
from torch import nn

from engine.measurement.ready_layers import dense_layers, swap_modules
from engine.models.loaded_model import LoadedModel, load_model
from engine.models.loading import resolve_model
from engine.tensors.weights import DenseWeight
from tests.tiny import tiny

CPU = torch.device("cpu")
TIED = {"model.embed_tokens", "lm_head"}


@pytest.fixture
def loaded(tmp_path) -> LoadedModel:
    folder = tiny("llama-tied", tmp_path / "model", torch.bfloat16)
    return load_model(resolve_model(str(folder)), CPU, torch.float32)


def test_every_layer_is_dense_in_its_precision_and_tied_ones_share_their_weight(loaded):
    ready = dense_layers(loaded)
    assert ready.keys() == {layer.name for layer in loaded.layers}
    for module in ready.values():
        assert isinstance(module.stored, DenseWeight)
        assert module.stored.weight.dtype == module.compute == torch.float32
    assert len({id(ready[name].stored) for name in TIED}) == 1
    assert dense_layers(loaded, ["lm_head"]).keys() == {"lm_head"}


def test_the_model_answers_the_same_with_them_and_has_its_own_back_afterwards(loaded):
    ids = torch.arange(5, 20)[None]
    with torch.no_grad():
        before = loaded.model(ids).logits
        own = {name: loaded.model.get_submodule(name) for name in TIED}
        with pytest.raises(RuntimeError), swap_modules(loaded.model, dense_layers(loaded)):
            assert torch.equal(loaded.model(ids).logits, before)
            assert loaded.model.lm_head is not own["lm_head"]
            raise RuntimeError
    assert all(loaded.model.get_submodule(name) is module for name, module in own.items())


def test_modules_are_swapped_at_any_depth():
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.ReLU())
    with swap_modules(model, {"0.0": nn.Identity(), "1": nn.Identity()}):
        assert torch.equal(model(-torch.ones(2)), -torch.ones(2))
    assert isinstance(model[0][0], nn.Linear) and isinstance(model[1], nn.ReLU)
