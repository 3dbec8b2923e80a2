"""Sparsities and patterns that cannot be met are refused."""

import math

import pytest

from engine.errors import PlainError
from engine.models.layers import Layer
from engine.recipe import Recipe
from engine.techniques.implementations import compress, plan
from engine.techniques.pruning.sparsegpt.config import SparseGPT
from engine.techniques.pruning.unstructured.config import (
    Magnitude,
    Wanda,
)
from tests.cases import for_each
from tests.pruning import weight_of

LAYERS = [Layer("a", "linear", (24, 40), 4, ""), Layer("b", "linear", (24, 40), 4, "")]


@for_each(
    ("step", "words"),
    [
        ({"pattern": "4:2"}, "less than M"),
        ({"pattern": "4:4"}, "less than M"),
        ({"pattern": "0:4"}, "at least 1"),
        ({"pattern": "half"}, "give N:M"),
        ({"sparsity": 1.0}, "0.99"),
        ({"sparsity": -0.1}, "0"),
        ({"storage": "n-of-m"}, "needs a pattern"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(step, words):
    with pytest.raises(PlainError, match=words) as refused:
        Recipe.from_dict({"steps": [{"technique": "magnitude", **step}]})
    assert "\n" not in str(refused.value)


def test_a_width_that_m_does_not_divide_names_the_layer():
    layers = [LAYERS[0], Layer("model.mlp.down", "linear", (8, 172), 4, "")]
    with pytest.raises(
        PlainError,
        match=(
            r"model\.mlp\.down: A row of 172 weights cannot be cut into groups of 8; name the "
            r"layer"
        ),
    ):
        plan(Magnitude(pattern="4:8"), layers)


def test_a_layer_is_not_emptied():
    with pytest.raises(PlainError, match="No weight would be left"):
        compress(Magnitude(sparsity=0.99), weight_of(2, 3))


def test_every_share_is_in_the_label():
    assert Magnitude().label() == "Magnitude pruning (L1) 50%"
    assert SparseGPT(pattern="2:4").label() == "SparseGPT 2:4"
    assert Wanda(sparsity=0.6, scope="row").label() == "Wanda 60% of each row"
    assert math.isclose(Magnitude(pattern="1:4").removed_share, 0.75)
