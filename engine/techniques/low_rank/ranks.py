"""Rank of each layer: by a share of its parameters or energy, or by one budget for all layers
(water-filling).
"""

from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heappop, heapreplace

import torch

from engine.tensors.low_rank import saves_parameters

BISECTION_STEPS = 20  # bisection steps for the budget that keeps an energy


def rank_of_share(shape: tuple[int, int], share: float) -> int:
    """The largest rank whose factors have at most that share of the parameters, at least 1; full
    rank if the share is 1.
    """
    return (
        min(shape)
        if share == 1
        else max(1, min(min(shape), int(share * shape[0] * shape[1] / sum(shape))))
    )


def rank_of_energy(values: torch.Tensor, share: float) -> int:
    """The smallest rank that keeps this share of the squared singular values, which are given
    largest first.
    """
    energy = values.double().square().cumsum(0)
    return min(len(values), int((energy < share * energy[-1] * (1 - 1e-12)).sum()) + 1)


@dataclass(frozen=True)
class LayerEnergy:
    """Gain of a layer per kept parameter. Its energy is relative to its own sum, so that layers are
    comparable.
    """

    shape: tuple[int, int]
    energy: torch.Tensor  # (full rank,) float64, cumulative, the last is 1

    @classmethod
    def of(cls, shape: tuple[int, int], values: torch.Tensor) -> "LayerEnergy":
        squares = values.double().cpu().square()
        total = squares.sum()
        return cls(
            shape,
            squares.cumsum(0) / total
            if total > 0
            else torch.ones(len(squares), dtype=torch.float64),
        )

    @property
    def step(self) -> int:
        """Parameters per rank."""
        return sum(self.shape)

    @property
    def dense_parameters(self) -> int:
        """Parameters of the dense layer."""
        return self.shape[0] * self.shape[1]

    @cached_property
    def max_rank(self) -> int:
        """The largest rank whose factors are smaller than the weight; 1 if there is none."""
        rank = -(-self.dense_parameters // self.step) - 1
        return max(1, min(rank, min(self.shape)))

    def cost(self, rank: int) -> int:
        return rank * self.step if self.is_factored_at(rank) else self.dense_parameters

    def is_factored_at(self, rank: int) -> bool:
        """Return True if the layer is factorized at this rank; at higher ranks it stays dense."""
        return rank <= self.max_rank and saves_parameters(self.shape, rank)

    def gain(self, rank: int) -> float:
        return self.energy[rank - 1].item() if self.is_factored_at(rank) else 1.0

    @cached_property
    def keep_whole_rank(self) -> int:
        """The rank above which a dense layer gains more per parameter than further ranks."""
        ranks = torch.arange(1, self.max_rank)
        if not len(ranks):
            return 1
        next_gain = self.energy[1 : self.max_rank] - self.energy[: self.max_rank - 1]
        jump = (
            (1 - self.energy[: self.max_rank - 1])
            * self.step
            / (self.dense_parameters - ranks * self.step)
        )
        below = (next_gain <= jump).nonzero()
        return int(below[0]) + 1 if len(below) else self.max_rank

    @cached_property
    def steps(self) -> list[tuple[float, int, int]]:
        """(gain per parameter, parameters, rank reached), best first: single ranks, then the dense
        layer in one step.
        """
        ones = [
            (gain / self.step, self.step, rank)
            for rank, gain in enumerate(self.energy[: self.keep_whole_rank].diff().tolist(), 2)
        ]
        left = self.dense_parameters - self.cost(self.keep_whole_rank)
        return ones + (
            [((1 - self.gain(self.keep_whole_rank)) / left, left, min(self.shape))]
            if left > 0
            else []
        )


def allocated_ranks(layers: dict[str, LayerEnergy], share: float) -> dict[str, int]:
    """Rank of each layer that maximizes the sum of energies for this share of all parameters; full
    rank means dense.

    Steps are taken in the order of their gain per parameter until one does not fit. Single ranks
    then fill the rest of the budget, so less than one more rank of any layer is left.
    """
    ranks = {
        name: 1 if layer.is_factored_at(1) else min(layer.shape) for name, layer in layers.items()
    }
    left = share * sum(layer.dense_parameters for layer in layers.values()) - sum(
        layer.cost(ranks[name]) for name, layer in layers.items()
    )
    steps = sorted(
        (
            (*step, name)
            for name, layer in layers.items()
            if layer.is_factored_at(1)
            for step in layer.steps
        ),
        key=lambda step: -step[0],
    )
    for _, cost, rank, name in steps:
        if cost > left:
            break
        ranks[name], left = rank, left - cost
    return fill_remaining_budget(layers, ranks, left)


def fill_remaining_budget(
    layers: dict[str, LayerEnergy], ranks: dict[str, int], left: float
) -> dict[str, int]:
    """Add single ranks, the best next one each time, while any fits."""
    waiting = [
        (-marginal_gain(layers[name], rank), name)
        for name, rank in ranks.items()
        if layers[name].is_factored_at(rank)
    ]
    heapify(waiting)
    while waiting:
        _, name = waiting[0]
        layer, rank = layers[name], ranks[name]
        after = rank + 1 if layer.is_factored_at(rank + 1) else min(layer.shape)
        cost = layer.cost(after) - layer.cost(rank)
        if cost > left:
            heappop(waiting)
            continue
        ranks[name], left = after, left - cost
        heapreplace(waiting, (-marginal_gain(layer, after), name)) if layer.is_factored_at(
            after
        ) else heappop(waiting)
    return ranks


def marginal_gain(layer: LayerEnergy, rank: int) -> float:
    """Gain per parameter of the next rank."""
    after = rank + 1 if layer.is_factored_at(rank + 1) else min(layer.shape)
    return (layer.gain(after) - layer.gain(rank)) / max(1, layer.cost(after) - layer.cost(rank))


def allocated_ranks_by_energy(layers: dict[str, LayerEnergy], energy: float) -> dict[str, int]:
    """Ranks with the fewest parameters at which layers keep at least ``energy`` (0 to 1) on
    average.
    """
    low, high = 0.0, 1.0
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        low, high = (
            (low, middle)
            if mean_energy(layers, allocated_ranks(layers, middle)) >= energy
            else (middle, high)
        )
    return allocated_ranks(layers, high)


def mean_energy(layers: dict[str, LayerEnergy], ranks: dict[str, int]) -> float:
    return sum(layer.gain(ranks[name]) for name, layer in layers.items()) / max(1, len(layers))
