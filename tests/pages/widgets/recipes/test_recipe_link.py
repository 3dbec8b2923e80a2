"""Recipes in the page's address."""

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.recipe.text import MAX_BYTES
from pages.widgets.recipes.recipe_link import decoded_recipe, encoded_recipe
from tests.cases import for_each

STEPS = [
    {"technique": "magnitude", "sparsity": 0.6},
    {"technique": "round-to-nearest", "bits": 3},
    {"technique": "svd"},
]


@given(
    st.sampled_from(["bundled:docs-lm", "org/model", "~/mödel"]),
    st.lists(st.sampled_from(STEPS[:1]), max_size=1),
    st.integers(0, 10**6),
)
def test_a_recipe_comes_back_from_its_address(model, steps, seed):
    recipe = Recipe.from_dict({"model": model, "steps": [*steps, STEPS[1]], "seed": seed})
    address = encoded_recipe(recipe)
    assert decoded_recipe(address) == recipe
    assert address.isascii() and not set(address) & set("+/?&#% ")


@for_each(
    "address",
    [
        "",
        "no recipe",
        encoded_recipe(Recipe.from_dict({"steps": STEPS[:1]}))[:-9],
        base64.urlsafe_b64encode(zlib.compress(b"\xff\xfe")).decode(),
        "ä",
    ],
)
def test_a_damaged_address_is_refused_in_a_sentence(address):
    with pytest.raises(PlainError) as refused:
        decoded_recipe(address)
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)


def test_a_short_address_of_a_long_text_is_not_unpacked_beyond_the_limit():
    bomb = base64.urlsafe_b64encode(zlib.compress(b" " * 100 * MAX_BYTES, 9)).decode()
    assert len(bomb) < MAX_BYTES
    with pytest.raises(PlainError):
        decoded_recipe(bomb)
    with pytest.raises(PlainError, match="is too long"):
        decoded_recipe("A" * (2 * MAX_BYTES + 1))
