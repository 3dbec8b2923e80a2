"""Thousands of runs are listed page by page with search, filters and sort order, without reading
their records.
"""

import dataclasses
import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from engine.recipe import Recipe
from engine.results.schema.record import RunRecord
from engine.results.schema.run_tables import Tables
from engine.results.store import index, parquet, run_folder
from engine.results.store.process_lease import current_owner
from engine.results.store.run_query import RunPage, RunQuery
from engine.results.store.store import Store
from tests.cases import for_each
from tests.runs import START, finished_record, record, scores, summary, tables

ORDERS = ("newest", "oldest", "smallest", "compression", "quality", "model", "setting")


def run(
    number: int,
    model: str = "bundled:docs-lm",
    technique: str = "round-to-nearest",
    status: str = "done",
    **others,
) -> RunRecord:
    recipe = Recipe.from_dict({"model": model, "steps": [{"technique": technique}]})
    result = scores(1000 - number % 7, 11 + number % 5, compression=1 + number % 3)
    numbers = summary(f"run-{number:04}", result=result, model=model) if status == "done" else None
    return record(number, status, recipe=recipe, summary=numbers, **others)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results")


def ids(page: RunPage) -> list[str]:
    return [row.id for row in page.rows]


def every_page(store, query: RunQuery) -> list[RunPage]:
    pages = [store.page(query)]
    while pages[-1].has_more:
        pages.append(store.page(dataclasses.replace(query, after=pages[-1].rows[-1].position)))
    return pages


@for_each("order", ORDERS)
def test_pages_together_hold_every_run_once_in_order(tmp_path, order):
    store = Store(tmp_path / "results")
    for number in range(23):
        store.save(
            run(
                number,
                status="done" if number % 4 else "failed",
                message="" if number % 4 else "It failed.",
            )
        )
    pages = every_page(store, RunQuery(order=order, limit=5))
    together = [each for page in pages for each in ids(page)]
    assert [len(page.rows) for page in pages] == [5, 5, 5, 5, 3] and len(set(together)) == 23
    assert together == ids(store.page(RunQuery(order=order, limit=-1)))
    assert all(page.matching == page.total == 23 for page in pages)


def test_rows_follow_the_sort_order(store):
    for number in range(10):
        store.save(run(number, model=f"model-{9 - number}"))
    store.save(run(10, status="failed", message="It failed."))
    rows = {order: store.page(RunQuery(order=order, limit=-1)).rows for order in ORDERS}
    assert [row.id for row in rows["newest"]] == [row.id for row in reversed(rows["oldest"])]
    sizes = [row.size_bytes for row in rows["smallest"][:-1]]
    assert (
        sizes == sorted(sizes)
        and rows["smallest"][-1].id
        == rows["compression"][-1].id
        == rows["quality"][-1].id
        == "run-0010"
    )
    lost = [(row.after - row.before) / row.before for row in rows["quality"][:-1]]
    assert lost == sorted(lost) and lost[0] < lost[-1]
    assert [row.model for row in rows["model"]] == sorted(row.model for row in rows["model"])


def test_a_page_does_not_change_when_runs_arrive_or_are_deleted(store):
    for number in range(12):
        store.save(run(number))
    first = store.page(RunQuery(limit=4))
    second = RunQuery(limit=4, after=first.rows[-1].position)
    before = ids(store.page(second))
    for number in range(12, 20):
        store.save(run(number))
    store.delete(first.rows[-1].id)
    assert ids(store.page(second)) == before


@for_each(
    ("search", "found"),
    [
        ("gptq", {"run-0001"}),
        ("QWEN", {"run-0002"}),
        ("docs-lm awq", {"run-0003"}),
        ("docs-lm qwen", set()),
        ("run-0003", {"run-0003"}),
        ("failed memory", {"run-0004"}),
        ("language-modeling", {"run-0001", "run-0002", "run-0003", "run-0004"}),
        ("calibrated", {"run-0002"}),
        ("%", set()),
        ("_", set()),
        ("' OR 1=1 --", set()),
        ("\x00", set()),
        ("x" * 5000, set()),
        ("   ", {f"run-{n:04}" for n in range(1, 5)}),
    ],
)
def test_a_search_finds_runs_with_all_its_words_anywhere(tmp_path, search, found):
    store = Store(tmp_path / "results")
    store.save(run(1, technique="gptq"))
    noted = run(2, model="Qwen/Qwen3")
    store.save(
        noted.model_copy(
            update={
                "summary": noted.summary.model_copy(update={"notes": ("Calibrated on little.",)})
            }
        )
    )
    store.save(run(3, technique="awq"))
    store.save(run(4, status="failed", message="Out of memory."))
    assert set(ids(store.page(RunQuery(search=search)))) == found


def test_filters_are_offered_by_how_often_they_occur_and_narrow_the_list(store):
    for number, (model, technique) in enumerate(
        [("a", "gptq"), ("a", "gptq"), ("b", "magnitude"), ("a", "svd")]
    ):
        store.save(run(number, model, technique))
    store.save(run(9, "c", "magnitude", status="failed", message="It failed."))
    every = store.page(RunQuery())
    assert (every.models, set(every.techniques), every.statuses) == (
        ("a", "b", "c"),
        {"gptq", "magnitude", "svd"},
        ("done", "failed"),
    )
    assert ids(store.page(RunQuery(family="pruning"))) == ["run-0009", "run-0002"]
    assert ids(store.page(RunQuery(technique="gptq", model="a"))) == ["run-0001", "run-0000"]
    assert ids(store.page(RunQuery(status="failed"))) == ["run-0009"]
    measured = store.page(RunQuery(measured=True))
    assert "run-0009" not in ids(measured) and measured.total == 4 and "c" not in measured.models


def test_a_name_that_is_a_prefix_of_another_is_distinguished(store):
    store.save(run(1, technique="gradual"))
    assert (
        ids(store.page(RunQuery(technique="gradual"))) == ["run-0001"]
        and store.page(RunQuery(technique="grad")).rows == ()
    )


# --- amount of data read and sent --------------------------------------------------------------


@pytest.fixture
def many(store):
    """More runs than fit on a page, written as by another program."""
    for number in range(120):
        each = run(number)
        store.folder(each.id).mkdir(parents=True)
        (store.folder(each.id) / "record.json").write_text(each.model_dump_json())
    store.page(RunQuery())
    return store


def test_no_record_is_read_for_a_page_and_no_more_rows_come_than_it_holds(many, monkeypatch):
    monkeypatch.setattr(index, "read_record", lambda folder: pytest.fail(f"{folder} was read"))
    monkeypatch.setattr(
        index, "parsed_record", lambda run, text: pytest.fail(f"the record of {run} was parsed")
    )
    for order in ORDERS:
        page = many.page(RunQuery(order=order))
        assert len(page.rows) == 50 and page.matching == 120 and page.has_more
    assert many.under_way() is None


def test_only_changed_records_are_read_again(many, monkeypatch):
    read = []
    monkeypatch.setattr(
        index, "read_record", lambda path: (read.append(path.name), run_folder.read_record(path))[1]
    )
    changed = run(7, status="failed", message="It failed after all.")
    (many.folder("run-0007") / "record.json").write_text(changed.model_dump_json())
    assert many.page(RunQuery(status="failed")).rows[0].id == "run-0007" and read == ["run-0007"]


def test_a_damaged_run_is_read_once_and_again_after_a_repair(many, monkeypatch):
    read = []
    monkeypatch.setattr(
        index, "read_record", lambda path: (read.append(path.name), run_folder.read_record(path))[1]
    )
    path = many.folder("run-0007") / "record.json"
    whole = path.read_text()
    path.write_text("{")
    assert [many.page(RunQuery(status="unreadable")).matching for _ in range(3)] == [
        1,
        1,
        1,
    ] and read == ["run-0007"]
    path.write_text(whole)
    assert (
        many.page(RunQuery(status="unreadable")).matching == 0
        and many.record("run-0007").status == "done"
    )


def test_a_forecast_reads_a_few_runs_like_it(many, monkeypatch):
    parsed = []
    monkeypatch.setattr(
        index,
        "parsed_record",
        lambda run, text: (parsed.append(run), RunRecord.model_validate_json(text))[1],
    )
    many.save(run(500, technique="gptq"))
    like = many.similar_runs(run(0, technique="gptq").recipe)
    assert [each.id for each in like] == ["run-0500"] == parsed
    assert [each.id for each in many.similar_runs(run(0).recipe, most=3)] == [
        "run-0119",
        "run-0118",
        "run-0117",
    ]


def test_a_run_with_a_key_is_found_without_the_others(many, monkeypatch):
    parsed = []
    monkeypatch.setattr(
        index,
        "parsed_record",
        lambda run, text: (parsed.append(run), RunRecord.model_validate_json(text))[1],
    )
    parquet.save(tables(), many.folder("run-0007"))
    assert many.find("key-7").id == "run-0007" and parsed == ["run-0007"]


# --- runs missing or outdated in the store ----------------------------------------------------


def test_runs_that_could_not_be_saved_are_listed_among_the_others(store, monkeypatch):
    for number in range(6):
        store.save(run(number))
    with monkeypatch.context() as refusing:
        refusing.setattr(run_folder, "add_run", lambda *_: store.folder("no such id"))
        store.save(run(3, model="other", id="unsaved-1", created=START + timedelta(minutes=2.5)))
    pages = every_page(store, RunQuery(limit=2))
    assert [each for page in pages for each in ids(page)] == [
        "run-0005",
        "run-0004",
        "run-0003",
        "unsaved-1",
        "run-0002",
        "run-0001",
        "run-0000",
    ]
    assert (
        ids(store.page(RunQuery(model="other"))) == ["unsaved-1"]
        and store.page(RunQuery()).total == 7
    )


def test_a_store_that_cannot_be_read_hides_no_run_that_could_not_be_saved(tmp_path):
    (tmp_path / "results").write_text("a file where a folder should be")
    store = Store(tmp_path / "results")
    store.save(run(1), Tables.empty())
    assert [each.id for each in store.records()] == ids(store.page(RunQuery())) == ["run-0001"]
    assert store.find("key-1").id == "run-0001" and store.under_way() is None
    assert [each.id for each in store.similar_runs(run(2).recipe)] == ["run-0001"]


def test_runs_of_ended_programs_are_listed_as_interrupted_even_on_a_read_only_disk(
    store, monkeypatch
):
    store.save(run(1, status="running", owner=current_owner()))
    for number in range(2, 40):
        store.save(run(number, status="running", owner="1:1.0"))
    read = []
    original = index.active_records
    monkeypatch.setattr(run_folder, "update_run", lambda *_: store.folder("no such id"))
    monkeypatch.setattr(index, "active_records", lambda rows: (read.append(1), original(rows))[1])
    assert (
        store.page(RunQuery(status="running")).matching == 1
        and store.page(RunQuery(status="interrupted")).matching == 38
    )
    assert store.page(RunQuery()).total == 39
    assert len(read) <= 3, "once a page, however many runs were lost"
    assert store.under_way() == "run-0001"


# --- one record cannot break the list ----------------------------------------------------------

NAIVE = "2026-01-01T00:00:00"


def rewrite_record(store: Store, run: str, **fields) -> None:
    path = store.folder(run) / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_time_without_a_zone_is_read_as_utc(store):
    for number in (1, 2):
        store.save(run(number))
    rewrite_record(store, "run-0001", created=NAIVE, finished=NAIVE)
    assert store.record("run-0001").created == datetime(2026, 1, 1, tzinfo=UTC)
    assert (
        [each.id for each in store.records()]
        == ids(store.page(RunQuery()))
        == ["run-0002", "run-0001"]
    )


@for_each(
    ("fields", "why"),
    [
        ({"created": "0001-01-01T00:00:00+14:00"}, "created"),
        ({"created": "yesterday"}, "created"),
        (
            {"recipe": {"steps": [{"technique": "sparse-magic"}]}},
            "unknown technique 'sparse-magic'",
        ),
        ({"recipe": {"task": {"kind": "telepathy"}}}, "unknown kind 'telepathy'"),
        ({"newer": 1}, "a field that this version does not know"),
        ({"status": "paused"}, "status"),
        ({"key": None}, "key"),
        ({"summary": {}}, "summary"),
        ({"recipe": {"newer_field": 1}}, "recipe.newer_field"),
    ],
)
def test_an_invalid_record_is_listed_with_the_reason(tmp_path, fields, why):
    store = Store(tmp_path / "results")
    store.save(run(1))
    store.save(run(2))
    rewrite_record(store, "run-0001", **fields)
    row = store.page(RunQuery(status="unreadable")).rows[0]
    assert (
        row.id == "run-0001"
        and why in row.message
        and "delete it" in store.record("run-0001").message
    )
    assert store.page(RunQuery()).total == 2
    store.delete("run-0001")
    assert ids(store.page(RunQuery())) == ["run-0002"]


def test_numbers_of_any_size_are_listed(store):
    store.save(finished_record(1))
    path = store.folder("run-0001") / "record.json"
    for number, readable in ((10**18, True), (2**70, False), (10**400, False)):
        content = json.loads(path.read_text())
        content["summary"]["result"]["size_bytes"] = number
        path.write_text(json.dumps(content))
        assert (store.page(RunQuery()).rows[0].status == "done") is readable


def test_a_pipe_or_device_instead_of_a_record_does_not_block(store):
    store.save(run(1))
    path = store.folder("run-0001") / "record.json"
    for stand_in in (
        lambda: os.mkfifo(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(path),
    ):
        path.unlink()
        stand_in()
        assert store.page(RunQuery()).rows[0].status == "unreadable"


def test_a_run_with_a_future_time_is_listed_first(store):
    store.save(run(1))
    store.save(run(2, created=datetime(9999, 12, 31, tzinfo=UTC)))
    assert ids(store.page(RunQuery())) == ["run-0002", "run-0001"]
