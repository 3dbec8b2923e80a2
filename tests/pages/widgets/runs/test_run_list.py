"""The list of runs: what is sent and found, stable pages when runs arrive,
and whose runs can be deleted.
"""

import json

import pytest

from engine.recipe import Recipe
from engine.results.schema.record import RunRecord
from engine.results.store import index
from engine.results.store.store import Store
from engine.runtime.settings import home
from engine.session.visitors import visitor_id
from pages.widgets import state
from tests.pages.hostile import Listener
from tests.pages.many_runs import MANY, listed_runs, newest, numbered_run, put
from tests.pages.sessions import open_page, sentences, words_on
from tests.runs import finished_record


def store_failed_run(run: str, seed: int, by: str) -> str:
    recipe = Recipe.from_dict(
        {"model": "bundled:docs-lm", "seed": seed, "steps": [{"technique": "round-to-nearest"}]}
    )
    record = RunRecord(
        id=run,
        key=recipe.key(),
        recipe=recipe,
        status="failed",
        message="It failed.",
        visitor=visitor_id(by),
    )
    Store(home()).save(record)
    return run


def buttons(run: str) -> set[str]:
    app = open_page("runs", run=run)
    assert not app.exception
    return {button.key for button in app.button if button.key}


def test_only_own_runs_have_a_delete_button_and_all_can_be_run_again(shared_server):
    own, other = (
        store_failed_run("mine-1", 1, shared_server),
        store_failed_run("theirs-1", 2, "another browser"),
    )
    assert "runs-delete" in buttons(own) and "runs-delete" not in buttons(other)
    assert f"runs-again-{other}" in buttons(other)


def test_without_sharing_every_run_has_a_delete_button(kept_apart, monkeypatch):
    monkeypatch.delenv("COMPRESSION_EXPLORER_SHARED", raising=False)
    assert "runs-delete" in buttons(store_failed_run("theirs-2", 3, "another browser"))
    state.session().close()
    state.session.clear()


def test_a_page_of_runs_is_sent_and_the_next_one_after_a_click(store):
    app = open_page("runs")
    assert listed_runs(app) == newest(50) and "Page 1 of 3 · 130 of 130 runs" in words_on(app)
    app.button(key="runs-next").click().run()
    assert listed_runs(app) == newest(50, 50)
    put(store, numbered_run(MANY))  # arrives meanwhile
    assert listed_runs(app.run()) == newest(50, 50)
    app.button(key="runs-next").click().run()
    assert listed_runs(app) == newest(30, 100) and app.button(key="runs-next").disabled
    for _ in range(2):
        app.button(key="runs-previous").click().run()
    assert listed_runs(app) == [f"run-{MANY:04}", *newest(49)] and sentences(app) == []


def test_a_page_whose_runs_were_deleted_is_replaced_by_the_first(store):
    app = open_page("runs")
    for _ in range(2):
        app.button(key="runs-next").click().run()
    for run in listed_runs(app):
        store.delete(run)
    assert listed_runs(app.run()) == newest(50) and sentences(app) == []


def test_what_is_sent_does_not_grow_with_the_number_of_runs(store, monkeypatch):
    sent = Listener.attach(monkeypatch)
    sizes = {}
    for runs in (MANY, 2 * MANY):
        for number in range(MANY, runs):
            put(store, numbered_run(number))
        for page, query in (("runs", {}), ("compare", {"runs": "run-0128,run-0126"})):
            open_page(page, query)
            sizes.setdefault(page, []).append(sum(message.ByteSize() for message in sent.messages))
    assert all(after < 1.05 * before for before, after in sizes.values()), sizes


def test_no_page_parses_the_records_of_runs_it_does_not_open(store, monkeypatch):
    open_page("runs")
    parsed = []
    original = index.parsed_record
    monkeypatch.setattr(
        index, "parsed_record", lambda run, text: (parsed.append(run), original(run, text))[1]
    )
    monkeypatch.setattr(index, "read_record", lambda folder: pytest.fail(f"{folder} was read"))
    for page in ("start", "runs", "compare"):
        assert not open_page(page).exception
    assert parsed == []


def test_sorting_is_of_all_runs_and_not_of_the_page(store):
    app = open_page("runs")
    app.selectbox(key="runs-order").set_value("smallest").run()
    assert listed_runs(app)[:3] == ["run-0000", "run-0001", "run-0002"]
    app.selectbox(key="runs-order").set_value("oldest").run()
    assert listed_runs(app) == [f"run-{n:04}" for n in range(50)]


def test_a_run_that_is_open_stays_open_when_others_arrive(store):
    app = open_page("runs", **{"runs-chosen": "run-0128"})
    assert "run-0128" in words_on(app)
    put(store, numbered_run(MANY))
    assert "run-0128" in words_on(app.run()) and not app.exception


BENT = {
    "a time without a zone": {"created": "2026-01-01T00:00:00"},
    "a technique of a newer version": {"recipe": {"steps": [{"technique": "sparse-magic"}]}},
    "a field of a newer version": {"newer": [1, 2]},
    "a status that there is not": {"status": "paused"},
    "no results": {"summary": None},
    "numbers of another measure": {
        "summary": json.loads(finished_record(1).model_dump_json())["summary"]
        | {"result": {"size_bytes": 1, "bits_per_weight": 1}}
    },
    "negative and huge numbers": {
        "summary": json.loads(finished_record(1).model_dump_json())["summary"]
        | {"seconds": -1e300, "peak_rss_bytes": -(10**30)}
    },
    "a clock that was wrong": {"created": "9999-12-31T23:59:59Z"},
    "an owner that is none": {"status": "running", "owner": "nan:\u202e"},
    "a key that is a pattern": {"key": "../runs/run", "status": "failed"},
}


@pytest.mark.parametrize("store", [4], indirect=True)
@pytest.mark.parametrize("what", BENT)
def test_a_damaged_record_breaks_no_page_and_can_be_deleted(store, what):
    path = store.folder("run-0128") / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | BENT[what]))
    for page in ("start", "compare", "ten_times", "runs"):
        app = open_page(
            page, query={"runs": "run-0128,run-0126"}, run="run-0128", **{"example-seen": True}
        )
        sentences(app)
    app.text_input(key="runs-search").set_value("run-0128").run()
    assert listed_runs(app) == ["run-0128"]
    app.button(key="runs-delete").click().run()
    assert not path.parent.exists() and len(Store(home()).records()) == 3
