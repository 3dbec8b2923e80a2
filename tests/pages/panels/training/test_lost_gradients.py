from pages.panels.training.lost_gradients import lost_gradients
from pages.panels.training.throughput import throughput
from tests.pages.panels import tables


def test_gradients_lost_have_a_line_for_each_short_precision_and_paces_a_bar_for_all():
    assert [(trace.name, *trace.y) for trace in lost_gradients(tables.precisions()).data] == [
        ("bfloat16", 0, 0),
        ("float16", 0.1, 0.1),
    ]
    (bars,) = throughput(tables.precisions()).data
    assert dict(zip(bars.y, bars.x, strict=True)) == {
        "float32": 400,
        "bfloat16": 500,
        "float16": 100,
    }
