"""Comparisons of runs."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.results.analysis.runs import (
    comparison,
    entropy_bits,
    layers_side_by_side,
    most_flattened,
    noted_layers,
    pareto_front,
    trade_off,
    why_not_comparable,
    worst_layer,
)
from engine.results.schema.run_tables import Tables
from engine.results.schema.tables import LayerRow, LevelRow, SurfaceRow, table
from tests.cases import for_each
from tests.runs import PROTOCOL, finished_record, layer, record, scores, tables

few = st.integers(0, 5)  # few values, so that ties happen
points = st.lists(st.tuples(few, few) | st.tuples(st.floats(), st.floats()), max_size=20).map(
    lambda rows: pd.DataFrame(rows, columns=["cost", "gain"], dtype=float)
)


def beats(a, b, higher_is_better):
    gain_a, gain_b = (a.gain, b.gain) if higher_is_better else (-a.gain, -b.gain)
    return a.cost <= b.cost and gain_a >= gain_b and (a.cost < b.cost or gain_a > gain_b)


@given(points, st.booleans())
def test_the_front_is_exactly_the_points_that_no_other_beats(frame, higher_is_better):
    front = pareto_front(frame, "cost", "gain", higher_is_better)
    for row, best in zip(frame.itertuples(), front, strict=True):
        known = row.cost == row.cost and row.gain == row.gain
        assert best == (
            known and not any(beats(other, row, higher_is_better) for other in frame.itertuples())
        )


@given(points, st.booleans(), st.randoms())
def test_the_front_does_not_depend_on_the_order_of_rows(frame, higher_is_better, random):
    order = random.sample(range(len(frame)), len(frame))
    shuffled = pareto_front(frame.iloc[order], "cost", "gain", higher_is_better)
    assert shuffled.sort_index().equals(pareto_front(frame, "cost", "gain", higher_is_better))


@given(points)
def test_the_front_leaves_its_table_untouched(frame):
    before = frame.copy()
    pareto_front(frame, "cost", "gain")
    pd.testing.assert_frame_equal(frame, before)


# --- runs -----------------------------------------------------------------------------------------


def test_a_trade_off_has_every_finished_run_and_each_original_once():
    frame = trade_off(
        [
            finished_record(1),
            finished_record(2),
            finished_record(3, model="bundled:other"),
            record(4, "failed"),
        ]
    )
    assert sorted(frame["run"]) == ["", "", "run-0001", "run-0002", "run-0003"]
    assert frame[frame["run"] == ""]["model"].tolist() == ["bundled:docs-lm", "bundled:other"]
    assert set(frame[frame["run"] == ""]["label"]) == {"Uncompressed"} and set(
        frame[frame["run"] == ""]["compression"]
    ) == {1.0}


def test_without_finished_runs_there_is_no_trade_off_and_no_comparison():
    for made in (trade_off, comparison):
        assert made([record(1)]).empty and list(made([]).columns) == list(
            made([finished_record(1)]).columns
        )


def test_lower_perplexity_and_higher_accuracy_are_better():
    low, high = (
        finished_record(1, result=scores(500, 11.0)),
        finished_record(2, result=scores(500, 12.0)),
    )
    assert trade_off([low, high]).set_index("run")["best"].to_dict() == {
        "": True,
        "run-0001": True,
        "run-0002": False,
    }
    original = scores(1000, None, accuracy=0.9)
    low, high = (
        finished_record(n, baseline=original, result=scores(500, None, accuracy=n / 10))
        for n in (1, 2)
    )
    assert trade_off([low, high]).set_index("run")["best"].to_dict() == {
        "": True,
        "run-0001": False,
        "run-0002": True,
    }


def test_runs_under_another_protocol_are_on_a_front_of_their_own():
    other = PROTOCOL.model_copy(update={"context": 128})
    frame = trade_off(
        [
            finished_record(1, result=scores(500, 11.0)),
            finished_record(2, result=scores(500, 12.0), protocol=other),
        ]
    )
    assert frame["best"].all() and len(frame) == 4


def test_a_compressed_model_that_is_smaller_and_better_takes_the_original_off_the_front():
    assert trade_off([finished_record(1, result=scores(500, 9.0))]).set_index("run")[
        "best"
    ].to_dict() == {
        "": False,
        "run-0001": True,
    }


def test_a_comparison_has_a_row_for_each_finished_run_in_the_order_given():
    frame = comparison([finished_record(2), record(3), finished_record(1)])
    assert (
        frame["run"].tolist() == ["run-0002", "run-0001"]
        and frame["technique"].tolist() == ["Round to nearest"] * 2
    )


def test_the_change_is_after_minus_before_and_as_a_share_of_before():
    row = comparison(
        [finished_record(1, baseline=scores(1000, 10.0), result=scores(500, 12.0, agreement=0.8))]
    ).iloc[0]
    assert (
        row.quality_before,
        row.quality_after,
        row.quality_change,
        row.quality_change_share,
    ) == (10.0, 12.0, 2.0, 0.2)
    assert row.agreement == 0.8 and row.quality_name == "perplexity" and row.fingerprint == "f00d"


def test_unmeasured_values_are_nan():
    row = comparison(
        [
            finished_record(
                1, baseline=scores(9, None, accuracy=0.0), result=scores(5, None, accuracy=0.5)
            )
        ]
    ).iloc[0]
    assert (
        pd.isna(row.agreement) and pd.isna(row.quality_change_share) and row.quality_change == 0.5
    )


def test_runs_measured_the_same_way_compare():
    assert (
        why_not_comparable([])
        == why_not_comparable([finished_record(1)])
        == why_not_comparable([finished_record(1), finished_record(2, seconds=9.0), record(3)])
        == ""
    )


CHANGES = [
    {"context": 128},
    {"task": "text-classification"},
    {"data": "other.txt"},
    {"fingerprint": "beef"},
    {"windows": 5},
]
CHANGES += [{"targets": 7}, {"samples": 8}, {"compute_dtype": "bfloat16"}, {"measure": "Other."}]


@for_each("change", CHANGES)
def test_any_difference_in_protocol_is_named(change):
    (value,) = change.values()
    sentence = why_not_comparable(
        [finished_record(1), finished_record(2, protocol=PROTOCOL.model_copy(update=change))]
    )
    assert (
        str(value) in sentence
        and sentence.startswith("These runs are not comparable")
        and sentence.endswith(".")
    )


def test_another_model_is_named_and_its_revision_goes_without_saying():
    sentence = why_not_comparable(
        [finished_record(1), finished_record(2, model="bundled:digits-cnn", revision="r2")]
    )
    assert "model (bundled:docs-lm, bundled:digits-cnn)" in sentence and "revision" not in sentence
    assert "revision (r1, r2)" in why_not_comparable(
        [finished_record(1), finished_record(2, revision="r2")]
    )


# --- layers ---------------------------------------------------------------------------------------


def test_the_most_affected_layer_has_the_largest_output_error():
    rows = [
        layer("quiet", relative_error=0.9, output_error=0.1),
        layer("loud", relative_error=0.1, output_error=0.2),
    ]
    assert worst_layer(table(rows, LayerRow)) == "loud"


def test_without_output_errors_the_weights_decide():
    rows = [
        layer("a", relative_error=0.9),
        layer("b", relative_error=0.1),
        layer("kept", relative_error=float("nan")),
    ]
    assert worst_layer(table(rows, LayerRow)) == "a"


def test_where_nothing_was_compressed_no_layer_is_worst():
    assert (
        worst_layer(Tables.empty().layers)
        == ""
        == worst_layer(table([layer(relative_error=float("nan"))], LayerRow))
    )


def test_layers_side_by_side_are_all_layers_under_their_labels():
    frame = layers_side_by_side({"4-bit": tables(), "2-bit": tables(), "nothing": Tables.empty()})
    assert frame["label"].tolist() == ["4-bit"] * 2 + ["2-bit"] * 2 and frame.index.is_unique
    pd.testing.assert_frame_equal(
        frame[frame["label"] == "4-bit"].drop(columns="label"), tables().layers
    )


def test_no_layers_side_by_side_are_an_empty_table_with_the_same_columns():
    assert list(layers_side_by_side({}).columns) == list(
        layers_side_by_side({"a": tables()}).columns
    )


def surfaces(**inputs: tuple[float, ...]) -> pd.DataFrame:
    """Largest value of each input before and, if there is a second one, after scaling; and a value
    of one.
    """
    versions = ("original", "scaled")
    rows = [
        SurfaceRow(name, versions[number], 0, channel, value)
        for name, tops in inputs.items()
        for number, top in enumerate(tops)
        for channel, value in enumerate((top, 1.0, 1.0))
    ]
    return table(rows, SurfaceRow)


def test_the_input_that_the_scales_brought_down_most_comes_first():
    assert most_flattened(surfaces(calm=(4.0, 2.0), tamed=(30.0, 2.0), wild=(90.0,))) == "tamed"


def test_without_scales_the_most_prominent_input_is_chosen():
    assert (
        most_flattened(surfaces(calm=(4.0,), wild=(90.0,))) == "wild"
        and most_flattened(surfaces()) == ""
    )


def test_codes_need_at_least_their_entropy():
    even, one = (
        [LevelRow("a", float(value), weights) for value, weights in enumerate(each)]
        for each in ((5, 5, 5, 5), (20, 0, 0))
    )
    assert entropy_bits(table(even, LevelRow)) == 2.0 and entropy_bits(table(one, LevelRow)) == 0.0
    assert entropy_bits(
        table([LevelRow("a", 0.0, 3), LevelRow("a", 1.0, 1)], LevelRow)
    ) == pytest.approx(0.811278)


# --- notes ----------------------------------------------------------------------------------------


def test_layers_with_one_note_are_gathered_and_kept_ones_come_first():
    kept = {"technique": "", "relative_error": float("nan"), "note": "layers.skip names it"}
    rows = [
        layer("plain"),
        layer("one", note="ragged"),
        layer("head", **kept),
        layer("two", note="ragged"),
        layer("tied", **kept, tied_to="head"),
    ]
    noted = noted_layers(table(rows, LayerRow))
    assert noted.to_dict("records") == [
        {"kept": True, "note": "layers.skip names it", "count": 1, "names": "head"},
        {"kept": False, "note": "ragged", "count": 2, "names": "one, two"},
    ]


def test_of_many_layers_with_one_note_some_are_named_and_all_are_counted():
    noted = noted_layers(
        table([layer(f"layer-{number:02}", note="ragged") for number in range(15)], LayerRow)
    )
    assert noted["count"].tolist() == [15] and noted.names[0].endswith("layer-11 and 3 more")


def test_layers_without_notes_say_nothing():
    assert (
        noted_layers(table([layer("plain")], LayerRow)).empty
        and noted_layers(table([], LayerRow)).empty
    )
