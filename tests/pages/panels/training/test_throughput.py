from pages.panels.theme import ORIGINAL
from pages.panels.training.throughput import THROUGHPUT, throughput
from tests.pages.panels import tables


def test_bars_are_the_latest_throughput_of_each_precision():
    curves = tables.precisions()
    last = (curves.name == "examples per second") & (curves.step == 20)
    curves.loc[last, "value"] *= 2
    [bars] = throughput(curves).data
    assert dict(zip(bars.y, bars.x, strict=True)) == {
        "float32": 800,
        "bfloat16": 1000,
        "float16": 200,
    }
    assert [color == ORIGINAL for color in bars.marker.color] == [True, False, False]


def test_without_a_measurement_there_is_a_sentence():
    curves = tables.precisions()
    assert not throughput(curves[curves.name != "examples per second"]).data
    assert THROUGHPUT.describe(curves) == (
        "Examples per second: float32 400, bfloat16 500, float16 100."
    )
