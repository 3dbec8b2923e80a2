"""The stages of a run as one table: every model once a split, in order, and nothing invented."""

import pandas as pd
import pytest

from engine.__main__ import stage_lines
from engine.results.analysis.per_step_scores import STEP_SCORE_COLUMNS, step_quality, step_scores
from engine.results.schema.tables import StageRow, table
from tests.pages.panels import tables


def stages(steps: int = 3, splits: tuple[str, ...] = ("test", "validation")) -> pd.DataFrame:
    """Each step halves the bytes and costs a hundredth of accuracy; validation is a tenth below."""
    rows = []
    for step in range(steps):
        technique = f"step {step}" if step else ""
        rows += [
            StageRow(step, technique, "", "size_bytes", 800.0 / 2**step),
            StageRow(step, technique, "", "parameters", 100.0),
        ]
        rows += [
            StageRow(step, technique, split, "accuracy", 0.9 - step / 100 - place / 10)
            for place, split in enumerate(splits)
        ]
    return table(rows, StageRow)


def test_every_model_has_one_row_per_split_and_the_student_is_first():
    known = step_scores(stages())
    assert (
        list(known) == list(STEP_SCORE_COLUMNS)
        and known.split.tolist() == ["test"] * 3 + ["validation"] * 3
    )
    assert known.step.tolist() == [0, 1, 2] * 2 and known.technique.tolist()[:3] == [
        "",
        "step 1",
        "step 2",
    ]
    assert known.compression.tolist() == [1, 2, 4] * 2
    assert known.accuracy.tolist() == pytest.approx([0.9, 0.89, 0.88, 0.8, 0.79, 0.78])


def test_the_order_of_splits_is_that_of_the_rows_not_of_the_alphabet():
    assert step_scores(stages(splits=("validation", "test"))).split.unique().tolist() == [
        "validation",
        "test",
    ]


def test_what_was_not_measured_is_nan_and_no_stages_are_an_empty_table():
    assert step_scores(stages()).f1.isna().all()
    assert (
        list(step_scores(table((), StageRow))) == list(STEP_SCORE_COLUMNS)
        and step_scores(table((), StageRow)).empty
    )


def test_bits_per_parameter_are_by_the_originals_count_where_an_older_run_does_not_say_them():
    fewer = stages()
    fewer.loc[(fewer.measure == "parameters") & (fewer.step == 2), "value"] = 50.0
    assert step_scores(fewer).bits_per_parameter.tolist() == [64, 32, 16] * 2
    said = pd.concat(
        [fewer, table([StageRow(2, "step 2", "", "bits_per_parameter", 9.0)], StageRow)],
        ignore_index=True,
    )
    assert step_scores(said).bits_per_parameter.tolist() == [64, 32, 9] * 2


def test_the_shell_prints_a_table_a_split_where_there_are_several_and_none_of_one_step_in_one():
    lines = stage_lines(stages())
    assert [line for line in lines if line.startswith("on ")] == ["on test", "on validation"]
    assert lines[2].split() == [
        "parameters",
        "size_bytes",
        "bits_per_parameter",
        "compression",
        "accuracy",
    ]
    assert lines[3].split() == [
        "the",
        "original",
        "100",
        "800",
        "64.00",
        "1.00x",
        "0.9000",
    ] and lines[5].split()[-2:] == ["4.00x", "0.8800"]
    assert (
        stage_lines(stages(steps=2, splits=("test",))) == []
        and stage_lines(table((), StageRow)) == []
    )


def test_steps_side_by_side_are_a_row_for_each_step_and_split():
    frame = tables.steps("test", "validation")
    assert len(frame) == 8
    second = frame[(frame.step == 1) & (frame.split == "validation")].iloc[0]
    assert (second.size_bytes, second.removed, second.quality, second.agreement) == (
        6e6,
        0.25,
        pytest.approx(0.79),
        0.95,
    )
    assert (
        frame[frame.step == 0].removed.isna().all()
        and frame[frame.step == 0].agreement.isna().all()
    )


def test_without_stages_there_are_no_steps():
    assert step_quality(table((), StageRow)).empty
