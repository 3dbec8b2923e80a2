"""The replay ends where GPTQ ends."""

import pytest
import torch

from engine.calibration import InputStats
from engine.techniques.implementations import compress
from engine.techniques.quantization.gptq.config import GPTQ
from engine.techniques.quantization.gptq.explain import PLACES, ROWS, Replay
from engine.tensors.packing import unpack_bits
from tests.answers import lesson
from tests.cases import for_each
from tests.explained_steps import STEPS, each_architecture, look_at_hand

CPU = torch.device("cpu")
REPLAYED = [name for name in STEPS if name.startswith("gptq")]


@for_each("step", REPLAYED)
@each_architecture
def test_the_replay_ends_with_exactly_the_codes_that_gptq_gives(architecture, step, questions):
    look = look_at_hand(**questions(architecture, step))
    few = compress(look.config, look.weight[:ROWS], look.stats)
    codes = unpack_bits(few.codes, few.bits, few.shape[0] * few.shape[1]).view(few.shape)
    replay = Replay.of(look.config, look.weight[:ROWS].contiguous(), look.stats)
    last = replay.after(len(replay.places))
    stored = (
        codes[:, : len(replay.places)]
        if few.order is not None
        else codes[:, replay.order][:, : len(replay.places)]
    )
    assert torch.equal(torch.tensor(last.code.to_numpy()).view(stored.shape), stored.float())
    assert torch.equal(few.to_dense(), look.stored.to_dense()[:ROWS]), (
        "a few rows are rounded as all are"
    )


@for_each("step", REPLAYED)
@each_architecture
def test_rounded_columns_are_on_the_grid_and_waiting_ones_have_moved(architecture, step, questions):
    question = questions(architecture, step)
    table, dense = lesson(**question).table, look_at_hand(**question).stored.to_dense()
    rounded = table[table.code.notna()]
    assert (rounded.place < rounded.step).all() and (
        table[table.code.isna()].place >= table[table.code.isna()].step
    ).all()
    due = dense[torch.tensor(rounded.row.to_numpy()), torch.tensor(rounded.column.to_numpy())]
    torch.testing.assert_close(torch.tensor(rounded.gptq.to_numpy()), due, rtol=1e-4, atol=1e-6)
    waiting = table[table.code.isna()]
    assert (waiting.plain == waiting.original).all() and (
        waiting.query("step > 0").gptq != waiting.query("step > 0").original
    ).any()


def test_what_a_column_holds_when_its_turn_comes_is_what_the_method_rounded():
    rows = torch.randn(400, 86, generator=torch.Generator().manual_seed(0)) @ torch.randn(
        86, 172, generator=torch.Generator().manual_seed(1)
    )
    seen = InputStats(172, CPU)
    seen.add(rows)
    replay = Replay.of(
        GPTQ(), torch.randn(6, 172, generator=torch.Generator().manual_seed(2)), seen
    )
    for step in (0, 1, 31, 32, 100, 171):
        torch.testing.assert_close(
            replay.columns.values_after(step, replay.before)[step],
            replay.columns.weight[step],
            rtol=1e-4,
            atol=1e-4,
        )
    assert torch.equal(replay.columns.values_after(0, replay.before), replay.before)


@each_architecture
def test_the_output_error_begins_at_nothing_and_plain_rounding_is_the_formulas(
    architecture, questions
):
    look = look_at_hand(**questions(architecture, "gptq"))
    replay = Replay.of(look.config, look.weight[:ROWS].contiguous(), look.stats)
    first, (few, plain) = (
        replay.after(0),
        (look.weight[:ROWS], compress(look.config.rounding(), look.weight[:ROWS]).to_dense()),
    )
    assert first.gptq_error.max() == first.plain_error.max() == 0
    due = (
        (
            ((plain - few) @ look.stats.gram * (plain - few)).sum()
            / (few @ look.stats.gram * few).sum()
        )
        .sqrt()
        .item()
    )
    assert replay.share_lost(plain.T[replay.order]) == pytest.approx(due, rel=1e-4)


def test_steps_rows_and_columns_are_few_whatever_the_layer(questions):
    table = lesson(**questions("llama", "gptq")).table
    assert (
        table.row.nunique() == ROWS
        and table.place.nunique() == PLACES
        and table.step.nunique() == PLACES + 1
    )
    assert len(table) == ROWS * PLACES * (PLACES + 1) and lesson(
        **questions("llama", "gptq")
    ).part.startswith("12 of 48 output rows")
