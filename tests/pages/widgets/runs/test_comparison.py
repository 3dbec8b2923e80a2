"""Compare with more runs than fit on a page, with damaged ones among them."""

from streamlit.testing.v1 import AppTest

from engine.results.store import parquet
from pages.widgets.runs import comparison
from tests.pages.many_runs import MANY
from tests.pages.sessions import open_page, sentences, words_on
from tests.runs import tables


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
