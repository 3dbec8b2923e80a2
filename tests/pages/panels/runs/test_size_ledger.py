from pages.panels.runs.size_ledger import size_ledger
from tests.pages.panels import tables


def test_ledger_steps_end_where_the_next_begins_and_at_the_total():
    bars = size_ledger(tables.ledger()).data[0]
    ends = [base + size for base, size in zip(bars.base, bars.x, strict=True)]
    assert list(bars.base) == [0, *ends[:-1]] and ends[-1] == tables.ledger().size_bytes.sum()


def test_parts_are_summed_over_layers_and_empty_ones_left_out():
    bars = size_ledger(tables.ledger()).data[0]
    assert dict(zip(bars.y, bars.x, strict=True)) == {
        "codes": 15000,
        "scales": 1800,
        "norms and biases": 70,
    }
