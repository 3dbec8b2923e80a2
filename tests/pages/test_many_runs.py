"""Runs and Compare with more runs than fit on a page: what they send and find, and stable pages
when runs arrive.
"""

import json

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.schema.record import RunRecord
from engine.results.store import index, parquet
from engine.results.store.store import Store
from engine.runtime.settings import home
from engine.session import cluster_connection as link
from pages.widgets import state
from pages.widgets.runs import comparison
from tests.pages.hostile import Listener
from tests.pages.sessions import open_page, sentences, switch_page, words_on
from tests.runs import finished_record, record, scores, summary, tables

MANY = 130
MODELS = ("bundled:docs-lm", "Qwen/Qwen3-0.6B")


def run(number: int) -> RunRecord:
    """Synthetic run; every tenth failed, and the others have two models and two techniques."""
    technique = "gptq" if number % 3 else "magnitude"
    recipe = Recipe.from_dict(
        {"model": MODELS[number % 2], "steps": [{"technique": technique}], "seed": number}
    )
    if number % 10 == 9:
        return record(
            number, "failed", recipe=recipe, message="Out of memory; choose a smaller model."
        )
    numbers = summary(
        f"run-{number:04}", model=recipe.model, result=scores(500 + number, 11.0, compression=2.0)
    )
    return record(number, "done", recipe=recipe, summary=numbers)


def put(store: Store, run: RunRecord, with_tables: bool = False) -> None:
    """Write runs as another program would, without waiting for the disk."""
    store.folder(run.id).mkdir(parents=True)
    (store.folder(run.id) / "record.json").write_text(run.model_dump_json())
    if with_tables:
        parquet.save(tables(), store.folder(run.id))


@pytest.fixture
def store(request, tmp_path, monkeypatch) -> Store:
    """Store with the requested number of runs."""
    runs = getattr(request, "param", MANY)
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path))
    monkeypatch.setattr(link, "import_and_connect", no_workers)
    state.session.clear()
    st.cache_data.clear()
    store = Store(home())
    for number in range(MANY - runs, MANY):
        put(store, run(number), with_tables=number >= MANY - 12)
    yield store
    state.session().close()
    state.session.clear()
    st.cache_data.clear()


def no_workers():
    raise PlainError("There are no workers in this test; start the app for some.")


def listed_runs(app: AppTest) -> list[str]:
    return app.dataframe[0].value["run"].tolist()


def newest(number: int, skipped: int = 0) -> list[str]:
    return [f"run-{n:04}" for n in range(MANY - 1 - skipped, MANY - 1 - skipped - number, -1)]


def test_a_page_of_runs_is_sent_and_the_next_one_after_a_click(store):
    app = open_page("runs")
    assert listed_runs(app) == newest(50) and "Page 1 of 3 · 130 of 130 runs" in words_on(app)
    app.button(key="runs-next").click().run()
    assert listed_runs(app) == newest(50, 50)
    put(store, run(MANY))  # arrives meanwhile
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
            put(store, run(number))
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


def test_search_and_filters_narrow_the_list_and_are_remembered(store):
    app = open_page("runs")
    app.text_input(key="runs-search").set_value("Qwen magnitude").run()
    assert set(listed_runs(app)) == {f"run-{n:04}" for n in range(MANY) if n % 2 and n % 3 == 0}
    app.selectbox(key="runs-status").set_value("failed").run()
    expected = {f"run-{n:04}" for n in range(MANY) if n % 2 and n % 3 == 0 and n % 10 == 9}
    assert set(listed_runs(app)) == expected and "memory" in str(app.dataframe[0].value.to_numpy())
    assert set(listed_runs(switch_page(switch_page(app, "compare"), "runs"))) == expected
    app.text_input(key="runs-search").set_value("no such words").run()
    assert not app.dataframe and "No run matches" in app.info[0].value
    app.button(key="runs-clear").click().run()
    assert listed_runs(app) == newest(50) and app.text_input(key="runs-search").value == ""


def test_sorting_is_of_all_runs_and_not_of_the_page(store):
    app = open_page("runs")
    app.selectbox(key="runs-order").set_value("smallest").run()
    assert listed_runs(app)[:3] == ["run-0000", "run-0001", "run-0002"]
    app.selectbox(key="runs-order").set_value("oldest").run()
    assert listed_runs(app) == [f"run-{n:04}" for n in range(50)]


def test_a_run_that_is_open_stays_open_when_others_arrive(store):
    app = open_page("runs", **{"runs-chosen": "run-0128"})
    assert "run-0128" in words_on(app)
    put(store, run(MANY))
    assert "run-0128" in words_on(app.run()) and not app.exception


# --- compare -----------------------------------------------------------------------------------


def offered_runs(app: AppTest) -> set[str]:
    return {option.rpartition(" · ")[2] for option in app.multiselect(key="compare-runs").options}


def test_the_picker_offers_a_page_of_runs_and_those_chosen(store):
    app = open_page("compare", query={"runs": "run-0003"})
    for each in ("run-0003", "run-0128"):
        parquet.save(tables(), store.folder(each))
    assert (
        len(offered_runs(app)) == 51
        and "run-0003" in offered_runs(app)
        and "117 finished runs" in words_on(app)
    )
    app.text_input(key="compare-search").set_value("run-0004").run()
    assert offered_runs(app) == {"run-0003", "run-0004"} and app.multiselect(
        key="compare-runs"
    ).value == ["run-0003"]
    parquet.save(tables(), store.folder("run-0004"))
    app.multiselect(key="compare-runs").set_value(["run-0003", "run-0004"]).run()
    app.text_input(key="compare-search").set_value("").run()
    assert app.multiselect(key="compare-runs").value == [
        "run-0003",
        "run-0004",
    ] and app.query_params["runs"] in (
        "run-0003,run-0004",
        ["run-0003,run-0004"],
    )
    assert sentences(app) == []


def test_a_link_to_thousands_of_runs_compares_a_few(store):
    names = ",".join(f"run-{number:04}" for number in range(MANY))
    app = open_page("compare", query={"runs": names})
    assert (
        not app.exception
        and len(app.multiselect(key="compare-runs").value) == comparison.MAX_COMPARED
    )


def test_runs_with_damaged_tables_are_named_and_the_others_compared(store):
    (store.folder("run-0126") / "layers.parquet").write_bytes(b"nothing")
    app = open_page("compare", query={"runs": "run-0128,run-0126,run-0124"})
    assert len(sentences(app)) == 1 and "run\\-0126" in sentences(app)[0]
    assert "Which layers are most affected" in words_on(app) or len(app.get("plotly_chart")) >= 2


# --- unreadable runs ---------------------------------------------------------------------------


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
