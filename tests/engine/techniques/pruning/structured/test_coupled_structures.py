"""Structures and where they stand in the layers around them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.techniques.pruning.structured.coupled_structures import (
    StructureGroup,
    StructureSlice,
    adjacent_positions,
    kept_indices,
    remaining_positions,
    single_positions,
)


@given(st.integers(1, 20), st.sets(st.integers(0, 19)))
def test_removed_and_remaining_positions_are_all_positions(count, removed):
    removed = {place for place in removed if place < count}
    left = remaining_positions(count, torch.tensor(sorted(removed), dtype=torch.int64))
    assert sorted([*left.tolist(), *removed]) == list(range(count))


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(1, 4))
def test_each_structure_takes_its_places_from_every_layer_that_it_runs_through(stays, width):
    heads, kept = len(stays), torch.tensor(stays)
    group = StructureGroup(
        "block",
        "head",
        (
            StructureSlice("query", "outputs", adjacent_positions(heads, width)),
            StructureSlice("output", "inputs", adjacent_positions(heads, width)),
            StructureSlice("slopes", "outputs", single_positions(heads)),
        ),
    )
    sizes = {"query": heads * width, "output": heads * width, "slopes": heads}
    indices = kept_indices([(group, kept)], lambda name, side: sizes[name])
    if kept.all():
        assert indices == {}
        return
    wide = kept.repeat_interleave(width).nonzero().flatten()
    assert torch.equal(indices["query"].rows, wide) and indices["query"].columns is None
    assert torch.equal(indices["output"].columns, wide) and indices["output"].rows is None
    assert torch.equal(indices["slopes"].rows, kept.nonzero().flatten())


def test_two_groups_in_one_layer_are_removed_together():
    groups = [
        StructureGroup(
            "block", "neuron", (StructureSlice("up", "outputs", single_positions(3) + first),)
        )
        for first in (0, 3)
    ]
    marks = [torch.tensor([True, False, True]), torch.tensor([False, True, True])]
    indices = kept_indices(zip(groups, marks, strict=True), lambda name, side: 6)
    assert indices["up"].rows.tolist() == [0, 2, 4, 5]
