"""Preview of the rounds of the lottery-ticket experiment."""

import pandas as pd

from engine.results.schema.tables import table
from engine.techniques.previews import preview
from engine.techniques.pruning.lottery_ticket.config import LotteryTicket
from engine.techniques.pruning.lottery_ticket.tables import RoundRow


@preview.register
def preview_lottery_ticket(config: LotteryTicket) -> tuple[type[RoundRow], pd.DataFrame]:
    return RoundRow, lottery_rounds_preview(config)


def lottery_rounds_preview(config: LotteryTicket) -> pd.DataFrame:
    """RoundRow of the training with all weights, and of every round's ticket."""
    begins = [0] + [config.rewind_step] * config.rounds
    return table(
        (
            RoundRow(number, begin, config.steps, config.remaining_share(number))
            for number, begin in enumerate(begins)
        ),
        RoundRow,
    )
