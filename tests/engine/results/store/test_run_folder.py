"""A run's folder is whole or absent, and writing to it makes no run that was deleted."""

import pytest

from engine.errors import PlainError
from engine.results.store.run_folder import (
    add_run,
    delete_run,
    finish_run,
    read_record,
    update_run,
)
from tests.runs import finished_record, record, tables


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "run-0001"


def test_a_run_deleted_while_it_ran_does_not_come_back(folder):
    add_run(folder, record(1, "running"))
    delete_run(folder)
    for write in (
        lambda: update_run(folder, record(1)),
        lambda: finish_run(folder, finished_record(1), tables()),
        lambda: delete_run(folder),
    ):
        with pytest.raises(PlainError, match="may have been deleted"):
            write()
    assert list(folder.parent.iterdir()) == []


def test_an_id_is_given_once(folder):
    add_run(folder, record(1))
    with pytest.raises(PlainError, match="already a run run-0001"):
        add_run(folder, record(1, "failed"))
    assert read_record(folder).record == record(1) and list(folder.parent.iterdir()) == [folder]


def test_what_was_written_is_what_is_read_with_its_stamp(folder):
    assert add_run(folder, record(1)) == read_record(folder)
    assert update_run(folder, record(1, "running")) == read_record(folder)
    done = finish_run(folder, record(1, "running"), tables())
    assert done == read_record(folder) and done.record.status == "done"
