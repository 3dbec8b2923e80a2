import pandas as pd
import pytest

from pages.panels.runs.trade_off import trade_off
from pages.panels.theme import ORIGINAL
from tests.pages.panels import tables


def trace(figure, name: str):
    return next(t for t in figure.data if t.name == name)


@pytest.mark.parametrize("quality_name", ["perplexity", "accuracy"])
def test_pareto_line_joins_only_the_best(quality_name):
    runs = tables.runs(quality_name)
    line = trace(trade_off(runs), "Best for their size")
    assert sorted(line.y) == sorted(runs.quality[runs.best]) and list(line.x) == sorted(line.x)


def test_every_run_is_one_marker():
    markers = [x for t in trade_off(tables.runs()).data if "markers" in t.mode for x in t.x]
    assert sorted(markers) == sorted(tables.runs().size_bytes / 1e6)


def test_original_is_marked_differently():
    figure = trade_off(tables.runs())
    original = trace(figure, "Uncompressed")
    assert len(original.x) == 1 and original.marker.color == ORIGINAL
    assert original.marker.symbol != trace(figure, "Best runs").marker.symbol


def test_axis_says_which_way_is_better():
    assert "lower" in trade_off(tables.runs()).layout.yaxis.title.text
    assert "higher" in trade_off(tables.runs("accuracy")).layout.yaxis.title.text


def test_one_broken_run_does_not_flatten_the_others():
    broken = tables.runs().assign(
        quality=lambda t: t.quality.where(t.label != "GPTQ 2-bit", 40_000)
    )
    assert trade_off(tables.runs()).layout.yaxis.type is None
    assert (
        trade_off(broken).layout.yaxis.type == "log"
        and "log" in trade_off(broken).layout.yaxis.title.text
    )


def test_run_without_quality_is_left_out():
    unmeasured = tables.runs().assign(quality=lambda t: t.quality.where(t.label != "Rounding"))
    assert all(t.name != "Other runs" for t in trade_off(unmeasured).data)


def test_single_run_is_drawn():
    assert trade_off(tables.runs().iloc[:1]).data[-1].text == ("Uncompressed",)


def test_two_runs_in_one_place_do_not_write_over_each_other():
    twice = pd.concat([tables.runs()] * 5, ignore_index=True)
    figure = trade_off(twice)
    written = [text for t in figure.data if t.text is not None for text in t.text if text]
    assert 0 < len(written) < len(twice)
    assert sum(len(t.hovertext) for t in figure.data if t.hovertext) == len(twice), (
        "under the pointer every run has its words"
    )


def test_runs_of_different_models_or_protocols_are_not_joined():
    both = pd.concat([tables.runs(), tables.runs().assign(group=1)], ignore_index=True)
    lines = [line for line in trade_off(both).data if line.mode == "lines"]
    assert (
        len(lines) == 2
        and [line.showlegend for line in lines] == [True, False]
        and list(lines[0].x) == list(lines[1].x)
    )


def test_accuracies_that_are_all_alike_stand_in_the_middle():
    low, high = trade_off(tables.runs("accuracy").assign(quality=0.97)).layout.yaxis.range
    assert (low, high) == pytest.approx((0.92, 1.02))


def test_the_hover_text_has_both_bits_and_a_dash_for_missing_values():
    words = [text for t in trade_off(tables.runs()).data if t.hovertext for text in t.hovertext]
    assert words and all(
        "bits per parameter" in text and "per compressed weight" in text for text in words
    )
    older = trade_off(tables.runs().assign(bits_per_parameter=float("nan")))
    words = [text for t in older.data if t.hovertext for text in t.hovertext]
    assert words and all("— bits per parameter" in text for text in words)
