"""Bits for each layer under a budget of bytes, against brute force."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.techniques.quantization.mixed_precision.bit_allocation import allocate


@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 9), st.integers(1, 9)), min_size=3, max_size=3),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 30),
)
def test_exact_is_as_good_as_trying_everything_and_greedy_keeps_to_the_budget(candidates, more):
    damage, sizes = (
        np.array([[each[kind] for each in layer] for layer in candidates]) for kind in (0, 1)
    )
    budget = int(sizes.min(axis=1).sum()) + more

    def total(values, choice):
        return sum(values[layer, place] for layer, place in enumerate(choice))

    allowed = [
        choice for choice in product(range(3), repeat=len(sizes)) if total(sizes, choice) <= budget
    ]
    best = min(total(damage, choice) for choice in allowed)
    exact, greedy = allocate(damage, sizes, budget), allocate(damage, sizes, budget, exact=False)
    assert total(damage, exact) == pytest.approx(best) and total(sizes, exact) <= budget
    assert total(damage, greedy) >= best - 1e-9 and total(sizes, greedy) <= budget


def test_budgets_of_many_bytes_are_never_passed():
    draw = np.random.default_rng(0)
    sizes = np.sort(draw.integers(10**6, 10**8, (60, 4)))
    damage = -np.sort(-draw.random((60, 4)))
    for budget in np.linspace(sizes[:, 0].sum(), sizes[:, -1].sum(), 7).astype(int).tolist():
        spent, missed = (
            [
                sum(
                    values[layer, place]
                    for layer, place in enumerate(allocate(damage, sizes, budget, exact))
                )
                for exact in (True, False)
            ]
            for values in (sizes, damage)
        )
        assert max(spent) <= budget and missed[0] <= missed[1]
