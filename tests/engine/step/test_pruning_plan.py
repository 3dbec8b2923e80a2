"""Tensors that remain of a model after whole structures are removed."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.models.layers import Layer
from engine.step.pruning_plan import KeptIndices, PruningPlan
from engine.tensors.weights import DenseWeight
from tests.matrices import normal

UP = Layer("blocks.1.up", "linear", (6, 8), 4, "")
CONVOLUTION = Layer("blocks.1.conv", "conv2d", (6, 4, 3, 3), 4, "")
ROWS, COLUMNS = torch.tensor([0, 2, 5]), torch.tensor([1, 4, 6, 7])


def some_of(size: int) -> st.SearchStrategy:
    return st.none() | st.sets(st.integers(0, size - 1)).map(
        lambda kept: torch.tensor(sorted(kept), dtype=torch.int64)
    )


@given(some_of(6), some_of(8))
def test_the_shape_is_that_of_what_is_selected(rows, columns):
    kept = KeptIndices(rows, columns)
    assert kept.select(normal(6, 8)).shape == kept.shape(6, 8)


@given(some_of(6), some_of(8))
def test_a_sliced_weight_is_the_original_where_it_is_kept_and_zero_elsewhere(rows, columns):
    plan = PruningPlan({UP.name: KeptIndices(rows, columns)})
    weight = DenseWeight((6, 8), normal(6, 8))
    rows = torch.arange(6) if rows is None else rows
    columns = torch.arange(8) if columns is None else columns
    kept = torch.zeros(6, 8)
    kept[rows[:, None], columns] = 1
    dense = plan.sliced_weight(UP, weight).to_dense()
    assert torch.equal(dense, normal(6, 8) * kept)
    smaller = plan.stored_weight(UP, weight)
    assert torch.equal(smaller.to_dense(), dense[rows][:, columns])
    assert smaller.shape == plan.planned_weight(UP, weight).shape == plan.shape(UP)


def test_a_kernel_keeps_its_height_and_width():
    columns = torch.arange(4 * 9).view(4, 9)[[0, 3]].flatten()  # two input channels
    plan = PruningPlan({CONVOLUTION.name: KeptIndices(ROWS, columns)})
    assert plan.shape(CONVOLUTION) == (3, 2, 3, 3)


def test_blocks_that_are_left_move_up_and_removed_ones_are_empty():
    plan = PruningPlan(removed_blocks=("blocks.0",), new_block_names={"blocks.1": "blocks.0"})
    gone = Layer("blocks.0.up", "linear", (6, 8), 4, "")
    assert plan.name("blocks.1.up") == "blocks.0.up" and plan.name("head") == "head"
    assert plan.name("blocks.10.up") == "blocks.10.up", "no prefix of another number"
    assert [after.name for _, after in plan.layers([gone, UP])] == ["blocks.0.up"]
    assert plan.changes(gone.name) and not plan.changes(UP.name)
    assert plan.sliced_weight(gone, DenseWeight((6, 8), normal(6, 8))).to_dense().eq(0).all()


def test_a_bias_loses_what_its_layers_outputs_do_and_replaced_tensors_win():
    plan = PruningPlan(
        {UP.name: KeptIndices(ROWS, COLUMNS)}, replaced_tensors={"norm.weight": torch.ones(3)}
    )
    plain = plan.plain(
        {
            f"{UP.name}.bias": torch.arange(6.0),
            "norm.weight": torch.zeros(6),
            "other.bias": torch.arange(2.0),
        }
    )
    assert torch.equal(plain[f"{UP.name}.bias"], ROWS.float())
    assert torch.equal(plain["norm.weight"], torch.ones(3))
    assert torch.equal(plain["other.bias"], torch.arange(2.0))
