from pages.panels.weights.removed_weights import REMOVED_WEIGHTS, removed_weights
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_every_weight_is_one_mark_on_its_side():
    rows = tables.removed_weights()
    figure = removed_weights(rows)
    for name, stays in (("Removed", False), ("Kept", True)):
        marks = trace_named(figure, name)
        assert list(marks.x) == list(rows.weight[rows.stays == stays])
        assert list(marks.y) == list(rows.score[rows.stays == stays])
    gone, kept = (trace_named(figure, name).marker for name in ("Removed", "Kept"))
    assert gone.symbol != kept.symbol, "told apart without colors, too"


def test_the_description_names_the_largest_weight_that_went():
    rows = tables.removed_weights()
    largest = rows.weight.abs()[~rows.stays].max()
    assert REMOVED_WEIGHTS.describe(rows) == (
        f"{(~rows.stays).sum()} of 40 weights were removed; the largest of those is {largest:.3g}."
    )
    kept = rows[rows.stays]
    assert REMOVED_WEIGHTS.describe(kept).startswith(f"0 of {len(kept)} weights were removed")
