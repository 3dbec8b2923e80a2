"""The preview equals what a run does."""

import pytest

from engine.techniques.pruning.gradual.config import Gradual
from engine.techniques.pruning.gradual.preview import pruning_steps_preview


@pytest.mark.parametrize("schedule", ["one-shot", "iterative", "cubic"])
def test_cuts_ahead_are_those_of_the_schedule_and_end_at_the_share_asked_for(schedule):
    config = Gradual(schedule=schedule, sparsity=0.8, steps=100, prune_every=10)
    rows = pruning_steps_preview(config)
    own = rows[rows.chosen & rows.cut.gt(0)]
    assert set(own.schedule) == {schedule} and len(own) == config.pruning_steps
    assert own.share.tolist() == [
        config.sparsity_at(number) for number in range(1, config.pruning_steps + 1)
    ]
    assert (
        own.share.iloc[-1] == pytest.approx(0.8)
        and own.step.iloc[0] == 0
        and own.step.max() < config.steps
    )
    assert rows.schedule.nunique() == 3 and rows.groupby(
        "schedule"
    ).share.last().tolist() == pytest.approx([0.8] * 3)
