"""Choosing one candidate for each layer: the least total damage within a budget of bytes."""

from math import gcd

import numpy as np

PLACES = 1 << 16  # bytes are counted in units so that the budget has at most so many


def dealt(damage: np.ndarray, sizes: np.ndarray, budget: int, exact: bool = True) -> list[int]:
    """The candidate of each layer.  damage, sizes: (layers, candidates); ``budget`` holds at least the smallest of each.

    Exact is the multiple-choice knapsack by dynamic programming (Dudzinski and Walukiewicz 1987). Where sizes have no common
    divisor large enough, they are rounded up to 1/65536 of what the budget leaves, never beyond it.
    """
    greedy = by_steps(damage, sizes, budget)
    ways = [by_programming(damage, sizes, budget), greedy] if exact else [greedy]
    return min(ways, key=lambda way: sum(damage[layer, place] for layer, place in enumerate(way)))


def by_steps(damage: np.ndarray, sizes: np.ndarray, budget: int) -> list[int]:
    """From the smallest of each, again and again the step that saves most damage a byte."""
    chosen = [int(np.lexsort((damage[layer], sizes[layer]))[0]) for layer in range(len(sizes))]
    while True:
        now = sum(sizes[layer, place] for layer, place in enumerate(chosen))
        steps = [
            ((damage[layer, place] - damage[layer, other]) / more, layer, other)
            for layer, place in enumerate(chosen)
            for other in range(sizes.shape[1])
            if 0 < (more := sizes[layer, other] - sizes[layer, place]) <= budget - now and damage[layer, other] < damage[layer, place]
        ]
        if not steps:
            return chosen
        _, layer, other = max(steps)
        chosen[layer] = other


def by_programming(damage: np.ndarray, sizes: np.ndarray, budget: int) -> list[int]:
    """Layer by layer, the least damage that each number of spent units allows."""
    smallest = sizes.min(axis=1)
    extra, left = sizes - smallest[:, None], int(budget - smallest.sum())
    unit = max(gcd(*extra.flatten().tolist(), left) or 1, -(-left // PLACES), 1)
    extra, places = -(-extra // unit), left // unit + 1
    least, choices = np.zeros(places), np.zeros((len(sizes), places), dtype=np.int8)
    for layer, (costs, units) in enumerate(zip(damage, extra, strict=True)):
        ways = np.full((len(costs), places), np.inf)
        for way, cost, spent in zip(ways, costs, units, strict=True):
            if spent < places:
                way[spent:] = least[: places - spent] + cost
        choices[layer], least = ways.argmin(axis=0), ways.min(axis=0)
    return walked_back(choices, extra, int(least.argmin()))


def walked_back(choices: np.ndarray, extra: np.ndarray, place: int) -> list[int]:
    chosen = []
    for layer in range(len(choices) - 1, -1, -1):
        chosen.append(int(choices[layer, place]))
        place -= int(extra[layer, chosen[-1]])
    return chosen[::-1]
