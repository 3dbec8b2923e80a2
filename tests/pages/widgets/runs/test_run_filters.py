from tests.pages.many_runs import MANY, listed_runs, newest
from tests.pages.sessions import open_page, switch_page


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
