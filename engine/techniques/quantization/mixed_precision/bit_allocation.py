"""Choice of one candidate for each layer that minimizes the total damage within a budget
of bytes.
"""

from heapq import heapify, heappop, heappush
from math import gcd

import numpy as np

MAX_BUDGET_UNITS = 1 << 16  # bytes are counted in units, of which the budget has at most this many
# beyond that, rounding up each layer's size costs more of the budget than the greedy way leaves of
# it
MAX_EXACT_LAYERS = 2048


def allocate(damage: np.ndarray, sizes: np.ndarray, budget: int, exact: bool = True) -> list[int]:
    """The candidate of each layer.  damage, sizes: (layers, candidates); ``budget`` holds at least
    the smallest of each.

    Exact is the multiple-choice knapsack by dynamic programming (Dudzinski and Walukiewicz 1987).
    Where sizes have no common
    divisor large enough, they are rounded up to 1/65536 of what the budget leaves, never beyond it.
    """
    greedy = greedy_allocation(damage, sizes, budget)
    allocations = (
        [knapsack_allocation(damage, sizes, budget), greedy]
        if exact and len(sizes) <= MAX_EXACT_LAYERS
        else [greedy]
    )
    return min(
        allocations,
        key=lambda allocation: sum(
            damage[layer, candidate] for layer, candidate in enumerate(allocation)
        ),
    )


def greedy_allocation(damage: np.ndarray, sizes: np.ndarray, budget: int) -> list[int]:
    """Greedy allocation: starting from the fewest bits, repeat the step that reduces the damage
    most per byte.

    A step that does not fit into the rest of the budget never will, so each is considered once,
    when its layer reaches the step's starting point.
    """
    chosen = [int(np.lexsort((damage[layer], sizes[layer]))[0]) for layer in range(len(sizes))]
    left = budget - sum(int(sizes[layer, candidate]) for layer, candidate in enumerate(chosen))
    waiting = [
        step
        for layer, candidate in enumerate(chosen)
        for step in improvements(layer, candidate, damage, sizes)
    ]
    heapify(waiting)
    while waiting:
        _, layer, other, candidate = heappop(waiting)
        layer, other = -layer, -other
        more = int(sizes[layer, other] - sizes[layer, candidate])
        if candidate == chosen[layer] and more <= left:
            chosen[layer], left = other, left - more
            for step in improvements(layer, other, damage, sizes):
                heappush(waiting, step)
    return chosen


def improvements(
    layer: int, candidate: int, damage: np.ndarray, sizes: np.ndarray
) -> list[tuple[float, int, int, int]]:
    """Candidates better than ``candidate`` that take more bytes; of equal ones the last sorts
    first. (- damage saved per byte, - layer, - other, candidate)
    """
    more, saved = sizes[layer] - sizes[layer, candidate], damage[layer, candidate] - damage[layer]
    return [
        (-float(saved[other] / more[other]), -layer, -int(other), candidate)
        for other in np.flatnonzero((more > 0) & (saved > 0))
    ]


def knapsack_allocation(damage: np.ndarray, sizes: np.ndarray, budget: int) -> list[int]:
    """Dynamic programming over layers: the least damage for each number of spent units."""
    smallest = sizes.min(axis=1)
    extra, left = sizes - smallest[:, None], int(budget - smallest.sum())
    unit = max(gcd(*extra.flatten().tolist(), left) or 1, -(-left // MAX_BUDGET_UNITS), 1)
    extra, budgets = -(-extra // unit), left // unit + 1
    best_damage, choices = np.zeros(budgets), np.zeros((len(sizes), budgets), dtype=np.int8)
    for layer, (costs, units) in enumerate(zip(damage, extra, strict=True)):
        totals = np.full((len(costs), budgets), np.inf)
        for row, cost, spent in zip(totals, costs, units, strict=True):
            if spent < budgets:
                row[spent:] = best_damage[: budgets - spent] + cost
        choices[layer], best_damage = totals.argmin(axis=0), totals.min(axis=0)
    return backtracked_choices(choices, extra, int(best_damage.argmin()))


def backtracked_choices(choices: np.ndarray, extra: np.ndarray, budget: int) -> list[int]:
    chosen = []
    for layer in range(len(choices) - 1, -1, -1):
        chosen.append(int(choices[layer, budget]))
        budget -= int(extra[layer, chosen[-1]])
    return chosen[::-1]
