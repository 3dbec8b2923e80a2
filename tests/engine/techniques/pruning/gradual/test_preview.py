"""The preview equals what a run does."""

import pytest

from engine.techniques.pruning.gradual.config import Gradual
from engine.techniques.pruning.gradual.preview import cuts_ahead, rounds_ahead
from engine.techniques.pruning.lottery_ticket.config import LotteryTicket


@pytest.mark.parametrize("schedule", ["one-shot", "iterative", "cubic"])
def test_cuts_ahead_are_those_of_the_schedule_and_end_at_the_share_asked_for(schedule):
    how = Gradual(schedule=schedule, sparsity=0.8, steps=100, prune_every=10)
    rows = cuts_ahead(how)
    mine = rows[rows.chosen & rows.cut.gt(0)]
    assert set(mine.schedule) == {schedule} and len(mine) == how.cuts
    assert mine.share.tolist() == [how.share_at(number) for number in range(1, how.cuts + 1)]
    assert (
        mine.share.iloc[-1] == pytest.approx(0.8)
        and mine.step.iloc[0] == 0
        and mine.step.max() < how.steps
    )
    assert rows.schedule.nunique() == 3 and rows.groupby(
        "schedule"
    ).share.last().tolist() == pytest.approx([0.8] * 3)


def test_every_round_leaves_its_share_and_begins_where_it_is_set_back_to():
    rows = rounds_ahead(LotteryTicket(rounds=2, share=0.5, steps=40, rewind_step=5))
    assert (
        rows.left.tolist() == [1.0, 0.5, 0.25]
        and rows.begins.tolist() == [0, 5, 5]
        and set(rows.ends) == {40}
    )
