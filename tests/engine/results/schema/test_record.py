"""Run records of earlier versions load, with a note on how they counted."""

import json

import pytest
from pydantic import ValidationError

from engine.recipe import Recipe
from engine.recipe.model_names import ASSETS
from engine.recipe.tasks import LanguageModeling
from engine.results.analysis.per_step_scores import step_scores
from engine.results.analysis.runs import comparison, trade_off
from engine.results.schema.record import RELATIVE_TO_REMAINING, RunRecord, Summary
from engine.results.store.store import Store
from tests.cases import for_each
from tests.runs import finished_record, scores, summary

EXAMPLES = Store(ASSETS / "examples", indexed=False)


def older(record: RunRecord) -> dict:
    """Record as an earlier version wrote it, without bits per parameter."""
    fields = json.loads(record.model_dump_json())
    for name in ("baseline", "result"):
        del fields["summary"][name]["bits_per_parameter"]
    return fields


def record_with_sizes(**others) -> RunRecord:
    known = {
        "baseline": scores(8000, parameters=4000),
        "result": scores(2000, 11.0, parameters=3000, compression=4.0),
    }
    return finished_record(1, **known | others)


def test_an_older_record_gets_its_bits_per_parameter_from_its_sizes_and_the_originals_count():
    for record in (
        RunRecord.model_validate(older(record_with_sizes())),
        RunRecord.model_validate_json(json.dumps(older(record_with_sizes()))),
    ):
        assert (
            record.summary.baseline.bits_per_parameter,
            record.summary.result.bits_per_parameter,
        ) == (16.0, 4.0)


def test_a_record_without_any_count_has_none():
    record = RunRecord.model_validate(
        older(finished_record(1))
    )  # from a version without parameter counts
    assert record.summary.result.bits_per_parameter is None
    assert (
        comparison([record]).bits_per_parameter.isna().all()
        and trade_off([record]).bits_per_parameter.isna().all()
    )


@for_each(
    "result",
    [
        {"size_bytes": 2**63},
        {"size_bytes": -1},
        {"parameters": 10**30},
        {"perplexity": None},
        {"accuracy": 0.5},
    ],
    ids=str,
)
def test_numbers_that_no_page_can_show_make_a_record_unreadable(result):
    fields = json.loads(finished_record(1).model_dump_json())
    fields["summary"]["result"] |= result
    with pytest.raises(ValidationError):
        RunRecord.model_validate(fields)


def test_what_a_record_says_itself_is_kept():
    said = record_with_sizes(result=scores(2000, 11.0, parameters=3000, bits_per_parameter=7.5))
    assert (
        RunRecord.model_validate_json(said.model_dump_json()).summary.result.bits_per_parameter
        == 7.5
    )


def test_an_older_run_that_removed_parameters_gets_one_note():
    fields = older(record_with_sizes())
    fields["recipe"]["steps"] = [{"technique": "structured", "score": "l2"}]
    once = RunRecord.model_validate(fields)
    assert once.summary.notes == (RELATIVE_TO_REMAINING,)
    # as stored in an index
    assert RunRecord.model_validate_json(once.model_dump_json()).summary.notes == (
        RELATIVE_TO_REMAINING,
    )
    # rounding removes no parameters
    assert RunRecord.model_validate(older(record_with_sizes())).summary.notes == ()


def test_the_stored_examples_say_both_bits():
    for name in ("first-look", "ten-times"):
        record = EXAMPLES.record(name)
        said, stages = record.summary, step_scores(EXAMPLES.tables(name).stages)
        assert (
            said.result.bits_per_parameter == 8 * said.result.size_bytes / said.baseline.parameters
        )
        if not stages.empty:
            assert stages.bits_per_parameter.iloc[-1] == said.result.bits_per_parameter
        row = comparison([record]).iloc[0]
        assert (row.bits_per_parameter, row.bits_per_weight) == (
            said.result.bits_per_parameter,
            said.result.bits_per_weight,
        )


def test_a_summary_for_programs_names_both():
    fields = json.loads(
        summary(baseline=scores(parameters=500), result=scores(500)).model_dump_json()
    )
    assert isinstance(Summary.model_validate(fields).result.bits_per_parameter, float)
    assert {"bits_per_weight", "bits_per_parameter"} <= fields["result"].keys() & fields[
        "baseline"
    ].keys()


def test_a_stored_record_without_bos_means_never():
    record = RunRecord(id="abcd", key="0", recipe=Recipe(task=LanguageModeling(bos="auto")))
    stored = json.loads(record.model_dump_json())
    assert RunRecord.model_validate_json(json.dumps(stored)) == record
    del stored["recipe"]["task"]["bos"]
    older = RunRecord.model_validate_json(json.dumps(stored))
    assert (
        older.recipe.task.bos == "never"
        and RunRecord.model_validate_json(older.model_dump_json()) == older
    )
