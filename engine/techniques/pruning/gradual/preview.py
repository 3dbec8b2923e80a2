"""Preview of a technique that trains, computed from its options by the same functions as a run.
Reads no weights.
"""

from collections.abc import Iterator

import pandas as pd

from engine.results.schema.explanations import CutRow, RoundRow
from engine.results.schema.tables import table
from engine.techniques.pruning.gradual.config import Gradual
from engine.techniques.pruning.lottery_ticket.config import LotteryTicket

SCHEDULES = ("one-shot", "iterative", "cubic")


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


def rounds_ahead(how: LotteryTicket) -> pd.DataFrame:
    """RoundRow of the training with all weights, and of every round's ticket."""
    begins = [0] + [how.rewind_step] * how.rounds
    return table(
        (
            RoundRow(number, begin, how.steps, how.left(number))
            for number, begin in enumerate(begins)
        ),
        RoundRow,
    )
