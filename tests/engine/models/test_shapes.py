"""Modules take the shapes of the tensors that are loaded into them."""

from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.models.shapes import fit_shapes, is_head_count, scale_counts, select_heads
from engine.tensors.weights import DenseWeight
from tests.cases import for_each
from tests.matrices import normal


def stored(*shape: int) -> DenseWeight:
    return DenseWeight(shape, torch.empty(shape))


def test_every_kind_of_layer_takes_the_shape_of_its_weight_and_computes_with_it():
    with torch.device("meta"):
        model = nn.ModuleDict(
            {
                "linear": nn.Linear(8, 6),
                "conv1d": Conv1D(6, 8),
                "conv": nn.Conv2d(8, 6, 3, padding=1),
                "norm": nn.LayerNorm(8),
                "batch": nn.BatchNorm2d(8),
            }
        )
    smaller = {"linear": stored(4, 5), "conv1d": stored(4, 5), "conv": stored(4, 5 * 9)}
    plain = {"linear.bias": torch.zeros(4), "conv1d.bias": torch.zeros(4)} | {
        "conv.bias": torch.zeros(4),
        "norm.weight": torch.zeros(5),
        "batch.running_mean": torch.zeros(5),
    }
    fit_shapes(model, smaller, plain)
    assert (model["linear"].in_features, model["linear"].out_features) == (5, 4)
    assert model["conv1d"].weight.shape == (5, 4) and model["conv1d"].nf == 4
    assert (model["conv"].in_channels, model["conv"].out_channels) == (5, 4)
    assert model["norm"].weight.shape == (5,) and model["batch"].num_features == 5
    assert model["linear"](torch.empty(2, 5, device="meta")).shape == (2, 4)
    assert model["conv1d"](torch.empty(2, 5, device="meta")).shape == (2, 4)
    assert model["conv"](torch.empty(2, 5, 7, 7, device="meta")).shape == (2, 4, 7, 7)


def test_a_depthwise_convolution_has_a_group_for_each_channel_that_is_left():
    with torch.device("meta"):
        model = nn.ModuleDict({"conv": nn.Conv2d(8, 8, 3, groups=8, bias=False)})
    fit_shapes(model, {"conv": stored(5, 9)}, {})
    assert model["conv"].groups == model["conv"].in_channels == 5
    assert model["conv"](torch.empty(2, 5, 7, 7, device="meta")).shape == (2, 5, 5, 5)


def grouped_attention() -> SimpleNamespace:
    """8 query heads of width 4, two for each of 4 key heads."""
    return SimpleNamespace(
        num_heads=8,
        num_key_value_heads=4,
        num_key_value_groups=2,
        head_dim=4,
        embed_dim=32,
        kv_dim=16,
        layer_idx=3,
    )


@for_each(
    ("queries", "keys", "due"),
    [
        ((1, 2), (1, 2), {"num_heads": 4, "num_key_value_heads": 2, "embed_dim": 16, "kv_dim": 8}),
        ((1, 2), (1, 1), {"num_heads": 4, "num_key_value_groups": 1, "embed_dim": 16}),
        ((3, 4), (3, 4), {"num_heads": 6, "num_key_value_heads": 3, "embed_dim": 24, "kv_dim": 12}),
        ((1, 1), (1, 1), {}),
    ],
)
def test_counts_of_heads_shrink_and_their_width_stays(queries, keys, due):
    attention = grouped_attention()
    scale_counts(attention, Fraction(*queries), Fraction(*keys), width=32)
    assert vars(attention) == vars(grouped_attention()) | due


@pytest.mark.parametrize("name", ["num_heads", "n_head", "num_attention_heads", "n_heads"])
def test_attributes_that_count_heads_are_known_by_name(name):
    assert is_head_count(name) and is_head_count("num_key_value_groups")
    assert not is_head_count("head_dim") and not is_head_count("hidden_size")


@for_each("shape", [(6, 1, 9), (12, 1, 9), (2, 6, 9, 9)], ids=str)
def test_arguments_with_a_row_for_each_head_lose_those_of_removed_heads(shape):
    kept, states, value = torch.tensor([0, 2, 5]), torch.empty(2, 9, 24), normal(*shape)
    selected = select_heads(value, kept, 6, states)
    each = value.view(-1, 6, *shape[-2:]) if len(shape) == 3 else value
    assert torch.equal(selected.view(-1, 3, *shape[-2:]), each[:, kept])


@for_each("shape", [(2, 9, 24), (2, 1, 9, 9), (4, 9), (5, 9, 9)], ids=str)
def test_other_arguments_stay_as_they_are(shape):
    value = normal(*shape)
    assert select_heads(value, torch.tensor([0]), 6, torch.empty(2, 9, 24)) is value
    assert select_heads("eager", torch.tensor([0]), 6, torch.empty(2, 9, 24)) == "eager"
