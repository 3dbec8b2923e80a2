"""The model that learns shares nothing with the original."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.models.layers import selected_layers
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.training.trainable_model import (
    TrainableModel,
    as_module_weight,
    make_trainable,
    matrix_view,
    unshare_tensors,
)
from tests.cases import for_each
from tests.matrices import normal
from tests.recipes import recipe_for
from tests.tiny import tiny

CPU = torch.device("cpu")


@pytest.fixture
def trainable(tmp_path) -> TrainableModel:
    folder = tiny("llama", tmp_path / "model", torch.bfloat16)
    source = resolve_model(str(folder))
    original = load_model(source, CPU, torch.float32)
    recipe = recipe_for("llama", folder, tmp_path / "data")
    targets = selected_layers(original.layers, recipe.layers)
    return make_trainable(source, original, targets, CPU)


@for_each("module", [nn.Linear(6, 4), Conv1D(4, 6), nn.Conv2d(2, 4, (3, 1))], ids=str)
def test_a_matrix_view_is_written_back_by_its_inverse(module):
    matrix = normal(4, 6)
    assert torch.equal(matrix_view(module, as_module_weight(module, matrix)), matrix)
    view = matrix_view(module, module.weight.detach())
    view.zero_()
    assert (module.weight == 0).all(), "a view, not a copy"


def test_selected_layers_norms_and_biases_are_trained_in_float32(trainable):
    learning = {n for n, p in trainable.model.named_parameters() if p.requires_grad}
    layers = {f"{layer.name}.weight" for layer in trainable.layers}
    assert learning == layers | (trainable.original.plain.keys() & learning)
    assert "lm_head.weight" not in learning and "model.norm.weight" in learning
    assert {p.dtype for p in trainable.model.parameters()} == {torch.float32}


def test_a_saved_state_is_restored_and_has_only_trained_tensors(trainable):
    state = trainable.state()
    assert "lm_head.weight" not in state
    before = {name: trainable.weight(name) for name in (layer.name for layer in trainable.layers)}
    before = {name: weight.clone() for name, weight in before.items()}
    with torch.no_grad():
        for parameter in trainable.model.parameters():
            parameter.add_(1)
    trainable.load_state(state)
    assert all(torch.equal(trainable.weight(name), weight) for name, weight in before.items())


def test_norms_are_written_in_the_number_format_of_the_file(trainable):
    plain = trainable.plain()
    assert plain.keys() == trainable.original.plain.keys()
    assert all(plain[n].dtype == value.dtype for n, value in trainable.original.plain.items())
    with torch.no_grad():
        trainable.model.model.norm.weight.add_(1)
    assert not torch.equal(plain["model.norm.weight"], trainable.plain()["model.norm.weight"])
    assert torch.equal(plain["model.norm.weight"], trainable.original.plain["model.norm.weight"])


def test_masked_weights_are_zero_in_the_forward_pass_and_known_without_their_mask(trainable):
    name = trainable.layers[0].name
    whole = trainable.weight(name).clone()
    trainable.attach_masks()
    mask = torch.rand(whole.shape) < 0.5
    trainable.set_mask(name, mask)
    assert torch.equal(trainable.weight(name), whole * mask)
    assert torch.equal(trainable.unmasked_weight(name), whole)
    assert torch.equal(trainable.mask(name), mask)


def test_unshared_tensors_are_copies_in_float32():
    model = nn.BatchNorm1d(3).half()
    weight, count = model.weight.data, model.num_batches_tracked
    own = unshare_tensors(model, CPU)
    own.weight.data.add_(1)
    assert own.weight.dtype == torch.float32 and (weight == 1).all()
    assert own.num_batches_tracked.dtype == count.dtype == torch.int64
