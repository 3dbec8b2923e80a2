"""The panel on speed."""

from pages.panels.runs.speed import description, speed
from tests.pages.panels import tables


def test_layers_without_a_kernel_are_not_drawn():
    drawn = {name for trace in speed(tables.latency()).data for name in trace.y if name}
    assert not any("lm_head" in name for name in drawn) and len(drawn) == 2


def test_quartiles_are_the_whiskers():
    trace = next(trace for trace in speed(tables.latency()).data if trace.name == "Compressed")
    ends = [
        (x - low, x + high)
        for x, low, high in zip(trace.x, trace.error_x.arrayminus, trace.error_x.array, strict=True)
    ]
    timed = tables.latency().query("version == 'compressed' and kernel != ''")
    assert [round(low, 9) for low, _ in ends] == timed.low_ms.round(9).tolist()
    assert [round(high, 9) for _, high in ends] == timed.high_ms.round(9).tolist()


def test_a_run_without_any_kernel_says_so():
    none = tables.latency().query("kernel == ''")
    assert not speed(none).data and description(none) == "No kernel ran on this machine (1 reason)."


def test_the_description_names_both_versions():
    assert (
        description(tables.latency())
        == "whole model, 1 x 256 tokens: original 40 ms, compressed 20 ms (median)."
    )
