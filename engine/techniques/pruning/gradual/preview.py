"""Preview of the pruning schedule, computed from its options by the same functions as in a run."""

from collections.abc import Iterator

import pandas as pd

from engine.results.schema.explanations import CutRow
from engine.results.schema.tables import table
from engine.techniques.previews import preview
from engine.techniques.pruning.gradual.config import Gradual

SCHEDULES = ("one-shot", "iterative", "cubic")


@preview.register
def preview_gradual(config: Gradual) -> tuple[type[CutRow], pd.DataFrame]:
    return CutRow, cuts_ahead(config)


def cuts_ahead(how: Gradual) -> pd.DataFrame:
    """CutRow of every schedule at these options."""
    return table(
        (
            row
            for name in SCHEDULES
            for row in cuts_of(how.model_copy(update={"schedule": name}), name == how.schedule)
        ),
        CutRow,
    )


def cuts_of(how: Gradual, chosen: bool) -> Iterator[CutRow]:
    """The first cut is before the first step."""
    every = min(how.prune_every, how.steps)
    for number in range(1, how.cuts + 1):
        yield CutRow(how.schedule, number, (number - 1) * every, how.share_at(number), chosen)
    yield CutRow(how.schedule, 0, how.steps, how.share_at(how.cuts), chosen)
