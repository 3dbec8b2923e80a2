"""Preview of the rounds of the lottery-ticket experiment."""

import pandas as pd

from engine.results.schema.explanations import RoundRow
from engine.results.schema.tables import table
from engine.techniques.previews import preview
from engine.techniques.pruning.lottery_ticket.config import LotteryTicket


@preview.register
def preview_lottery_ticket(config: LotteryTicket) -> tuple[type[RoundRow], pd.DataFrame]:
    return RoundRow, rounds_ahead(config)


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
