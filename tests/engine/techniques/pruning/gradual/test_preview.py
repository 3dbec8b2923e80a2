"""The preview equals what a run does."""

import pytest

from engine.techniques.pruning.gradual.config import Gradual
from engine.techniques.pruning.gradual.preview import cuts_ahead


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
