"""The preview equals what a run does."""

from engine.techniques.pruning.lottery_ticket.config import LotteryTicket
from engine.techniques.pruning.lottery_ticket.preview import lottery_rounds_preview


def test_every_round_leaves_its_share_and_begins_where_it_is_set_back_to():
    rows = lottery_rounds_preview(LotteryTicket(rounds=2, share=0.5, steps=40, rewind_step=5))
    assert (
        rows.left.tolist() == [1.0, 0.5, 0.25]
        and rows.begins.tolist() == [0, 5, 5]
        and set(rows.ends) == {40}
    )
