"""All untrusted text is shown as text on every page: no name acts as Markdown, HTML, a formula or a
link.
"""

import ast
from pathlib import Path

import pytest
import streamlit as st

from engine.errors import PlainError
from engine.events import DownloadEvent, Message
from engine.results.store.store import Store
from engine.runtime.settings import home
from engine.session import Session
from engine.session import cluster_connection as link
from engine.session.progress import Progress
from pages.widgets import state
from pages.widgets.runs.result_views import available_views
from tests.cases import for_each
from tests.pages import hostile
from tests.pages.hostile import HOSTILE, Listener
from tests.pages.sessions import PAGES, ROOT, open_page

VIEWS = tuple(available_views(hostile.hostile_run(1), hostile.hostile_tables()))


@pytest.fixture(scope="module")
def kept_apart(tmp_path_factory):
    """Store of hostile runs, without workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(link, "import_and_connect", no_cluster)
        patch.setattr(Session, "ask", lambda self, query, *_, **__: hostile.answer(query))
        st.cache_data.clear()
        state.session.clear()
        store = Store(home())
        for number, status in enumerate(("done", "done", "failed", "cancelled", "interrupted"), 1):
            run_tables = hostile.hostile_tables() if status == "done" else None
            store.save(hostile.hostile_run(number, status), run_tables)
        damaged = store.folders / "run-0009"
        damaged.mkdir()
        (damaged / "record.json").write_text(
            hostile.hostile_run(9)
            .model_dump_json()
            .replace('"key"', '"![zq](http://foreign.test/p.png)"')
        )
        yield store
        state.session().close()
        state.session.clear()
        st.cache_data.clear()


def no_cluster():
    raise PlainError(f"There is no cluster at {HOSTILE}.")


@pytest.fixture
def sent_messages(monkeypatch) -> Listener:
    return Listener.attach(monkeypatch)


def assert_safe(app, sent_messages: Listener) -> None:
    assert not app.exception, [each.value for each in app.exception]
    assert sent_messages.names_something_hostile()
    assert not sent_messages.acting()


@for_each("page", PAGES)
def test_no_name_has_an_effect_on_any_page(page, sent_messages):
    """With a hostile model, run and pipeline step."""
    chain = {"chain": [], "chain-numbers": 1} if page != "pipeline" else {}
    remembered = {f"{page}-microscope": True, "model": HOSTILE, "run": "run-0001"} | chain
    assert_safe(open_page(page, **remembered), sent_messages)


@for_each("page", PAGES)
def test_quoted_text_in_messages_has_no_effect(page, sent_messages, monkeypatch):
    st.cache_data.clear()
    monkeypatch.setattr(Session, "ask", lambda self, query, *_, **__: hostile.refusal(query))
    assert_safe(
        open_page(
            page, query={"model": HOSTILE, "run": HOSTILE, "runs": HOSTILE, "recipe": HOSTILE}
        ),
        sent_messages,
    )
    st.cache_data.clear()


@for_each("view", VIEWS)
def test_no_name_has_an_effect_in_any_view(view, sent_messages):
    app = open_page("runs", run="run-0001", model=HOSTILE, **{"runs-view": view})
    assert_safe(app, sent_messages)
    assert not app.error or view in ("Ranges",), [each.value for each in app.error]


@for_each("run", ["run-0003", "run-0004", "run-0005", "run-0009"])
def test_messages_of_ended_runs_have_no_effect(run, sent_messages):
    app = open_page("runs", run=run, model=HOSTILE)
    assert_safe(app, sent_messages)
    assert any(run in each.value for each in app.markdown)


def test_stage_names_of_active_runs_have_no_effect(sent_messages, monkeypatch, kept_apart):
    from engine.results.store.process_lease import current_owner

    run = hostile.hostile_run(20, "running").model_copy(update={"owner": current_owner()})
    kept_apart.save(run)
    event = DownloadEvent("downloading", 1, 2, model=HOSTILE)
    monkeypatch.setattr(
        Session,
        "progress",
        lambda self, run: Progress().after(Message(event, 0.0)),
    )
    assert_safe(open_page("start", run=run.id, model=HOSTILE), sent_messages)
    kept_apart.delete(run.id)


def test_images_of_mistakes_are_never_fetched(sent_messages):
    open_page("runs", run="run-0001", model=HOSTILE, **{"runs-view": "Mistakes"})
    tables = [message for message in sent_messages.messages if message.HasField("delta")]
    assert not any(
        b"http://foreign.test/picture.png" in message.SerializeToString() for message in tables
    )


def test_the_check_detects_an_unescaped_name(sent_messages, monkeypatch):
    """Without escaping in one place, the pages' messages would show it."""
    from pages.widgets.runs import run_card

    monkeypatch.setattr(run_card, "literal_markdown", str)
    open_page("runs", run="run-0003", model=HOSTILE)
    assert sent_messages.acting()


# --- check of the sources ----------------------------------------------------------------------

ONE = (0, 1)
MARKDOWN = {  # methods of Streamlit, and which of their positional arguments are Markdown
    **dict.fromkeys(
        (
            "markdown",
            "caption",
            "error",
            "info",
            "warning",
            "success",
            "toast",
            "title",
            "header",
            "subheader",
        ),
        ONE,
    ),
    **dict.fromkeys(
        (
            "expander",
            "popover",
            "spinner",
            "button",
            "download_button",
            "toggle",
            "checkbox",
            "slider",
            "selectbox",
        ),
        ONE,
    ),
    **dict.fromkeys(
        (
            "text_input",
            "number_input",
            "segmented_control",
            "pills",
            "multiselect",
            "latex",
            "tabs",
            "dialog",
        ),
        ONE,
    ),
    "metric": (0, 3),
    "progress": (1, 2),
}
# Calls whose answer is safe to put into Markdown: it is escaped, or made of numbers and the app's
# own words.
SAFE_CALLS = {
    "literal_markdown",
    "percent",
    "megabytes",
    "count",
    "duration",
    "change",
    "meaning",
    "model_summary",
    "model_and_steps",
    "loss_formula",
    "dequantization_formula",
    "change_text",
    "notes_title",
    "round",
    "len",
    "max",
    "min",
    "abs",
    "int",
}
OWN_WORDS = {  # of the app itself, ids and numbers, file by file: expressions that need no escaping
    "start.py": {"bundled.title", "bundled.about"},
    "pipeline_editor.py": {"position", "label"},
    "comparison.py": {"helps.get(name)"},
    "explain.py": {"config.explanation", "config.formula", "config.limitations", "config.paper"},
    "forecast.py": {"size", "ahead.layers", "compressed"},
    "technique_form.py": {"TECHNIQUES[chosen].kind", "TECHNIQUES[chosen].summary"},
    "ten_times.py": {"smaller", "source", "number", "name", "idea"},
    "measure_form.py": {"title", "about", "field_title(Training, 'epochs')"},
    "inspect_weight.py": {
        "weight.row",
        "weight.column",
        "name",
        "last",
        "about",
        "(f'| {name} | {value} |' for name, value in facts)",
    },
    "student_errors.py": {"origin"},
    "ranges.py": {"answer.examples"},
    "recipe_file.py": {"about"},
    # of metric(), which is given escaped text
    "results.py": {"record.id", "title", "value", "change", "about"},
    "run_card.py": {"record.id"},
    "run_filters.py": {"title", "active"},
    "run_list.py": {"record.id"},
    "chart_card.py": {"panel.question", "panel.caption", "label"},
    "technique_page.py": {"title"},
    "glossary_help.py": {"term.name", "term.unit", "name", "term.meaning", "term.formula"},
}


def unescaped_parts(node: ast.expr) -> list[str]:
    """Parts of an expression that might contain untrusted text."""
    match node:
        case ast.Constant():
            return []
        case ast.JoinedStr():
            return [each for part in node.values for each in unescaped_parts(part)]
        case ast.FormattedValue(format_spec=ast.JoinedStr()):
            return []  # numbers: text has no such formats here
        case ast.FormattedValue():
            return unescaped_parts(node.value)
        case ast.IfExp():
            return [*unescaped_parts(node.body), *unescaped_parts(node.orelse)]
        case ast.BoolOp():
            return [each for value in node.values for each in unescaped_parts(value)]
        case ast.BinOp():
            return [*unescaped_parts(node.left), *unescaped_parts(node.right)]
        case ast.Call(func=ast.Attribute(attr="join"), args=[ast.List() | ast.Tuple() as parts]):
            return [
                each
                for part in parts.elts
                for each in unescaped_parts(part.value if isinstance(part, ast.Starred) else part)
            ]
        case ast.Call():
            return [] if name_of(node.func) in SAFE_CALLS else [ast.unparse(node)]
        case ast.List() | ast.Tuple():
            return [each for part in node.elts for each in unescaped_parts(part)]
        case ast.Name() | ast.Attribute() | ast.Subscript():
            return [] if name_of(node).isupper() else [ast.unparse(node)]
    return [ast.unparse(node)]


def name_of(node: ast.expr) -> str:
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return node.attr
        case ast.Subscript():
            return name_of(node.value)
    return ""


def markdown_in(path: Path) -> list[tuple[int, str]]:
    """Lines that put something unescaped into Markdown."""
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    shown = [
        (call, part)
        for call in calls
        for part in call.args[slice(*MARKDOWN.get(call.func.attr, (0, 0)))]
    ]
    shown += [
        (call, keyword.value)
        for call in calls
        for keyword in call.keywords
        if keyword.arg == "help"
    ]
    return [(call.lineno, each) for call, part in shown for each in unescaped_parts(part)]


@for_each(
    "path",
    sorted((ROOT / "pages").glob("*.py")) + sorted((ROOT / "pages" / "widgets").rglob("*.py")),
    ids=lambda path: str(path.relative_to(ROOT / "pages")),
)
def test_text_of_others_goes_through_escaped(path):
    found = [
        (line, each) for line, each in markdown_in(path) if each not in OWN_WORDS.get(path.name, ())
    ]
    assert not found, (
        f"{path.name}: write escaped(...) around {found}; or list it in this test, where it "
        "is the app's own"
    )


def test_the_check_of_sources_detects_missing_escapes(tmp_path):
    source = tmp_path / "page.py"
    source.write_text(
        'st.markdown(f"**{view.architecture}**")\nst.caption(message)\nst.error("a" + '
        'text)\nst.info(f"{literal_markdown(text)} {share:.2f}")\n'
    )
    assert [line for line, _ in markdown_in(source)] == [1, 2, 3]
