"""Table of gradual pruning, and the row of its preview."""

from dataclasses import dataclass
from typing import Literal

from engine.results.schema.declaration import ResultView, explanation_row, run_table


@run_table("schedule")
@dataclass(frozen=True)
class ScheduleRow:
    """State at one pruning step of a gradual schedule."""

    step: int  # training steps done
    sparsity: float  # share of zero weights in all compressed layers
    train_loss: float  # mean since the previous row, nats; NaN if nothing was trained
    quality_name: Literal["accuracy", "perplexity"]
    quality: float  # on held-out training examples, not the evaluation data
    size_bytes: int  # size of the model's files in its current state
    regrown: float  # share of the remaining weights that were pruned before the last pruning step
    event: Literal["before", "cut", "size reached", "trained", "below the floor", "went back"]


TRAINING_VIEW = ResultView(
    "Training", ScheduleRow, ("GRADUAL_PRUNING",), position=30, opens_first=True
)


@explanation_row(panel="GRADUAL_PRUNING_PREVIEW")
@dataclass(frozen=True)
class CutRow:
    """One pruning step of a gradual schedule, as planned; the last row of a schedule is the end of
    training.
    """

    schedule: str
    cut: int  # counted from 1; 0 is the end of training
    step: int  # training steps before it
    share: float  # share of zero weights after it
    chosen: bool  # True for the configured schedule
