"""A single weight is what the model computes with."""

import pytest
import torch

from engine.config.registry import TECHNIQUES
from engine.interactive.inspect_weight import NEIGHBOURS, column_factors, weight_location
from engine.techniques.implementations import compress
from engine.tensors.weights import DenseWeight
from tests.answers import weight
from tests.cases import for_each
from tests.explained_steps import STEPS, any_step, each_architecture, look_at_hand
from tests.techniques import EVERY, technique_id

WITHOUT_CODES = {
    name for name, config in TECHNIQUES.items() if config.family in ("pruning", "low-rank")
}


@any_step
@each_architecture
def test_scale_times_level_is_the_weight_that_the_model_computes_with(
    architecture, step, questions
):
    look = look_at_hand(**questions(architecture, step))
    dense, factors = look.stored.to_dense() / look.scales, column_factors(look.stored) * look.scales
    out, in_ = dense.shape
    for row, column in {
        (0, 0),
        (out - 1, in_ - 1),
        (out // 2, in_ // 3),
        (1, in_ - 1),
        (out - 1, 0),
    }:
        code = weight_location(look.stored, row, column).code
        if code is None:
            assert STEPS[step]["technique"] in WITHOUT_CODES or (
                step == "llm-int8" and (look.stored.columns == column).any()
            )
            continue
        assert code.scale * code.level / factors[column].item() == pytest.approx(
            dense[row, column].item(), rel=1e-5, abs=1e-8
        )
        assert code.zero != code.zero or code.level == code.code - code.zero
        assert (
            int(code.bit_string, 2) == code.code % 2**code.bits
            and len(code.bit_string) == code.bits
        )


@any_step
@each_architecture
def test_a_weight_is_shown_with_its_neighbors_on_the_levels_of_its_group(
    architecture, step, questions
):
    question = questions(architecture, step)
    shape = look_at_hand(**question).weight.shape
    for row, column in ((0, 0), (shape[0] - 1, shape[1] - 1), (shape[0] // 2, shape[1] // 2)):
        view = weight(**question, row=row, column=column)
        assert view.group.chosen.sum() == 1 and len(view.group) <= NEIGHBOURS
        chosen = view.group[view.group.chosen].iloc[0]
        assert (chosen.row, chosen.column) == (row, column) and chosen.stored == pytest.approx(
            view.stored * view.factor, rel=1e-5, abs=1e-8
        )
        assert chosen.original == pytest.approx(view.original * view.factor, rel=1e-5)
        if not view.levels.empty:
            nearest = [(view.levels.value - value).abs().min() for value in view.group.stored]
            assert max(nearest) < 1e-4 * view.levels.value.abs().max()


@for_each("config", EVERY, ids=technique_id)
@for_each("shape", [(33, 352), (7, 13), (1, 5)], ids=str)
def test_every_setting_is_explained(config, shape):
    stored = compress(config, torch.randn(shape, generator=torch.Generator().manual_seed(1)))
    if isinstance(stored, DenseWeight):
        return  # a longer or shorter number has no code that says more than its value
    for row, column in ((0, 0), (shape[0] - 1, shape[1] - 1), (shape[0] // 2, shape[1] // 2)):
        seen = weight_location(stored, row, column)
        assert seen.code.scale * seen.code.level == pytest.approx(
            stored.to_dense()[row, column].item(), rel=1e-5, abs=1e-8
        )
        assert (
            (seen.rows == row) & (seen.columns == column)
        ).sum() == 1 and 1 <= seen.code.shared_by <= shape[0] * shape[1]
        values = stored.to_dense()[seen.rows, seen.columns]
        assert (
            torch.stack([(seen.levels - value).abs().min() for value in values]).max()
            < 1e-4 * seen.levels.abs().max()
        )


def test_an_unknown_kind_shows_the_weight_with_its_neighbors():
    seen = weight_location(DenseWeight((4, 100), torch.randn(4, 100)), 2, 70)
    assert (
        seen.code is None
        and seen.levels is None
        and 70 in seen.columns
        and len(seen.columns) == NEIGHBOURS
        and set(seen.rows.tolist()) == {2}
    )
