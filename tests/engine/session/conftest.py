"""A tiny model and recipes for the tests of the session."""

from itertools import count

import pytest

from engine.recipe import Recipe
from tests.tiny import SENTENCES, tiny

seeds = count(1)  # another seed, another run


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a tiny model and a text."""
    folder = tmp_path_factory.mktemp("session")
    tiny("llama", folder / "model")
    (folder / "text.txt").write_text(" ".join(SENTENCES) * 3000)
    return folder


@pytest.fixture(scope="module")
def recipe(home):
    """A recipe nobody has run yet: a quick one, or one that takes minutes unless it is stopped."""

    def make_recipe(slow=False, **others):
        task = {
            "kind": "language-modeling",
            "text": str(home / "text.txt"),
            "context": 16,
            "tokens": 10**6 if slow else 256,
        }
        step = {"technique": "round-to-nearest", "bits": 4, "group_size": 4}
        return Recipe.from_dict(
            {"model": str(home / "model"), "task": task, "seed": next(seeds), "steps": [step]}
            | others
        )

    return make_recipe
