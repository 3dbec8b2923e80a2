"""Table of gradual pruning."""

from dataclasses import dataclass
from typing import Literal

from engine.results.schema.declaration import ResultView, run_table


@run_table("schedule")
@dataclass(frozen=True)
class ScheduleRow:
    """One moment of pruning with training in between."""

    step: int  # training steps done
    sparsity: float  # share of the weights of all layers treated that are zero
    train_loss: float  # mean since the row before, nats; NaN where nothing was trained
    quality_name: Literal["accuracy", "perplexity"]
    quality: float  # on examples held out from training, which are not those of the result
    size_bytes: int  # of the model's files, were they written now
    regrown: float  # of the weights left, the share that had been cut before the last cut
    event: Literal["before", "cut", "size reached", "trained", "below the floor", "went back"]


TRAINING_VIEW = ResultView(
    "Training", ScheduleRow, ("GRADUAL_PRUNING",), position=30, opens_first=True
)
