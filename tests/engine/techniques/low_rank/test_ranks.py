"""Ranks of layers under one budget."""

from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.techniques.low_rank.ranks import (
    LayerEnergy,
    allocated_ranks,
    allocated_ranks_by_energy,
    mean_energy,
    rank_of_energy,
    rank_of_share,
)


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.01, 0.999))
def test_factors_have_at_most_the_share_of_parameters_that_is_to_be_kept(out, in_, kept):
    rank = rank_of_share((out, in_), kept)
    assert rank * (out + in_) <= kept * out * in_ + 1e-6 or rank == 1
    assert (rank + 1) * (out + in_) > kept * out * in_ - 1e-6 or rank == min(out, in_)


def test_energy_takes_the_fewest_directions():
    values = torch.tensor([3.0, 2.0, 1.0, 1.0])
    assert [rank_of_energy(values, share) for share in (0.1, 9 / 15, 0.61, 13 / 15, 0.99, 1.0)] == [
        1,
        1,
        2,
        2,
        4,
        4,
    ]


def random_spectrum(out: int, in_: int, decay: float, seed: int = 0) -> LayerEnergy:
    values = torch.rand(
        min(out, in_), generator=torch.Generator().manual_seed(seed)
    ) * torch.arange(1, min(out, in_) + 1).float().pow(-decay)
    return LayerEnergy.of((out, in_), values.sort(descending=True).values)


def best_of_all(layers: dict[str, LayerEnergy], budget: float) -> float:
    """The most energy that any choice of ranks within the budget keeps."""
    options = [
        [
            (layer.cost(rank), layer.gain(rank))
            for rank in (*range(1, layer.max_rank + 1), min(layer.shape))
        ]
        for layer in layers.values()
    ]
    return max(
        (
            sum(gain for _, gain in each)
            for each in product(*options)
            if sum(cost for cost, _ in each) <= budget
        ),
        default=-1,
    )


@given(
    st.lists(
        st.tuples(st.integers(4, 12), st.integers(4, 12), st.floats(0, 2), st.integers(0, 9)),
        min_size=1,
        max_size=3,
    ),
    st.floats(0.05, 1),
)
def test_one_budget_is_met_to_within_one_direction_and_well_spent(shapes, kept):
    layers = {str(i): random_spectrum(*each) for i, each in enumerate(shapes)}
    ranks = allocated_ranks(layers, kept)
    budget, spent = (
        kept * sum(layer.dense_parameters for layer in layers.values()),
        sum(layer.cost(ranks[name]) for name, layer in layers.items()),
    )
    least = sum(layer.cost(1) for layer in layers.values())
    assert spent <= max(budget, least) + 1e-6
    open_ = [layer.step for name, layer in layers.items() if layer.is_factored_at(ranks[name])]
    assert not open_ or budget - spent < max(open_)
    if budget >= least:
        direction = max(
            layer.energy.diff(prepend=torch.zeros(1)).max().item() for layer in layers.values()
        )
        # a layer kept whole is one step
        jump = max((1 - layer.gain(layer.keep_whole_rank) for layer in layers.values()), default=0)
        assert sum(layer.gain(ranks[name]) for name, layer in layers.items()) >= best_of_all(
            layers, budget
        ) - max(direction, jump)


def test_where_spectra_fall_alike_no_layer_is_favoured_and_a_flat_one_gives_way_to_a_steep_one():
    alike = {name: random_spectrum(60, 60, 1.0) for name in "abc"}
    assert len(set(allocated_ranks(alike, 0.3).values()) - {0}) <= 2
    ranks = allocated_ranks(
        {"flat": random_spectrum(60, 60, 0.0), "steep": random_spectrum(60, 60, 3.0)}, 0.9
    )
    assert ranks["steep"] < ranks["flat"]


def test_a_share_of_the_energy_takes_as_little_as_will_do():
    layers = {str(i): random_spectrum(40, 50, decay) for i, decay in enumerate((0.2, 0.8, 1.5))}
    ranks = allocated_ranks_by_energy(layers, 0.8)
    cost = sum(layer.cost(ranks[name]) for name, layer in layers.items())
    assert mean_energy(layers, ranks) >= 0.8
    fewer = allocated_ranks(
        layers, (cost - 2 * 90) / sum(layer.dense_parameters for layer in layers.values())
    )
    assert mean_energy(layers, fewer) < 0.8
