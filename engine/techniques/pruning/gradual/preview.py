"""Preview of the pruning schedule, computed from its options by the same functions as in a run."""

from collections.abc import Iterator

import pandas as pd

from engine.results.schema.tables import table
from engine.techniques.previews import preview
from engine.techniques.pruning.gradual.config import Gradual
from engine.techniques.pruning.gradual.tables import CutRow

SCHEDULES = ("one-shot", "iterative", "cubic")


@preview.register
def preview_gradual(config: Gradual) -> tuple[type[CutRow], pd.DataFrame]:
    return CutRow, pruning_steps_preview(config)


def pruning_steps_preview(config: Gradual) -> pd.DataFrame:
    """CutRow of every schedule at these options."""
    return table(
        (
            row
            for name in SCHEDULES
            for row in schedule_rows(
                config.model_copy(update={"schedule": name}), name == config.schedule
            )
        ),
        CutRow,
    )


def schedule_rows(config: Gradual, chosen: bool) -> Iterator[CutRow]:
    """The first pruning step is before the first training step."""
    every = min(config.prune_every, config.steps)
    for number in range(1, config.pruning_steps + 1):
        yield CutRow(
            config.schedule, number, (number - 1) * every, config.sparsity_at(number), chosen
        )
    yield CutRow(config.schedule, 0, config.steps, config.sparsity_at(config.pruning_steps), chosen)
