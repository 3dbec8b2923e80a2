import pytest

from engine.techniques.pruning.lottery_ticket.config import LotteryTicket
from engine.techniques.pruning.lottery_ticket.preview import lottery_rounds_preview
from pages.panels.explain.lottery_preview import LOTTERY_PREVIEW, lottery_preview
from tests.pages.panels.traces import trace_named


@pytest.fixture
def rounds():
    return lottery_rounds_preview(LotteryTicket())


def test_each_round_is_a_line_from_where_it_begins_to_where_it_ends(rounds):
    lines = [line for line in lottery_preview(rounds).data if line.name == "Training"]
    ends = [(*line.x, *line.y) for line in lines]
    due = [(row.begins, row.ends, row.left, row.left) for row in rounds.itertuples()]
    assert ends == due and [line.showlegend for line in lines] == [True] + [False] * (len(due) - 1)


def test_dotted_lines_lead_from_the_end_of_a_round_to_the_begin_of_the_next(rounds):
    back = trace_named(lottery_preview(rounds), "Pruned and rewound")
    assert list(back.x[0::3]) == list(rounds.ends[:-1])
    assert list(back.x[1::3]) == list(rounds.begins[1:])
    assert list(back.y[1::3]) == list(rounds.left[1:]) and set(back.x[2::3]) == {None}


def test_the_description_counts_rounds_without_the_dense_network(rounds):
    assert LOTTERY_PREVIEW.describe(rounds).startswith(f"After {len(rounds) - 1} rounds, ")
