"""Schedules of gradual pruning."""

import pytest

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.techniques.pruning.gradual.config import Gradual
from tests.cases import for_each


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_schedules_are_their_closed_forms(sparsity):
    asked = {"sparsity": sparsity, "steps": 80, "prune_every": 10}
    cubic, iterative = Gradual(**asked), Gradual(schedule="iterative", **asked)
    assert cubic.pruning_steps == iterative.pruning_steps == 6
    for t in range(7):
        # equation 1, from 0
        assert cubic.sparsity_at(t) == pytest.approx(sparsity + (0 - sparsity) * (1 - t / 6) ** 3)
        assert 1 - iterative.sparsity_at(t) == pytest.approx((1 - sparsity) ** (t / 6))
    assert Gradual(schedule="one-shot", **asked).sparsity_at(1) == sparsity and cubic.sparsity_at(
        100
    ) == pytest.approx(sparsity)


@for_each(
    ("step", "words"),
    [
        (
            {"prune_every": 11, "steps": 10},
            r"\(prune_every\) is 11, more than the 10 training steps",
        ),
        ({"floor": 1.1}, "from 0 to 1"),
        ({"rate": -1}, "from 0 to 1"),
        ({"distill_weight": 2}, "from 0 to 1"),
        ({"steps": 0}, "from 1 to 100000"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(step, words):
    with pytest.raises(PlainError, match=words) as refused:
        Recipe.from_dict({"steps": [{"technique": "gradual", **step}]})
    assert "\n" not in str(refused.value)
