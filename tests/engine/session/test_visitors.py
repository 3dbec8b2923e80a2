"""Visitors own their runs and have quotas."""

import pytest

from engine.errors import PlainError
from engine.results.schema.record import RunRecord
from engine.runtime.settings import Sharing
from engine.session.visitors import check_owner, check_quota, may_change, visitor_id
from tests.runs import record

SHARED = Sharing(runs=2, queue=3)
ONE, OTHER = visitor_id("one secret"), visitor_id("other secret")


def test_an_id_is_stable_and_does_not_contain_the_secret():
    assert visitor_id("one secret") == ONE != OTHER and "secret" not in ONE


def test_records_of_earlier_versions_have_no_visitor():
    stored = record(visitor=ONE).model_dump(mode="json")
    del stored["visitor"]
    assert RunRecord.model_validate(stored).visitor == ""


def test_on_a_shared_server_visitors_change_only_their_own_runs():
    assert may_change(record(visitor=ONE), ONE, SHARED)
    assert not may_change(record(visitor=ONE), OTHER, SHARED)
    assert not may_change(record(visitor=""), "", SHARED)
    with pytest.raises(PlainError, match="another visitor"):
        check_owner(record(visitor=ONE), OTHER, SHARED)


def test_without_sharing_everyone_changes_every_run_and_there_are_no_quotas():
    check_owner(record(visitor=ONE), OTHER, None)
    check_quota([record(visitor=ONE)] * 100, ONE, None)


def test_quotas_count_a_visitors_runs_and_all_runs():
    check_quota([record(visitor=ONE), record(visitor=OTHER)], ONE, SHARED)
    with pytest.raises(PlainError, match="You have 2 active runs"):
        check_quota([record(visitor=ONE)] * 2, ONE, SHARED)
    with pytest.raises(PlainError, match="This server has 3 active runs"):
        check_quota([record(visitor=OTHER)] * 3, ONE, SHARED)
