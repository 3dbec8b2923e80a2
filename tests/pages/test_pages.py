"""Every page, through the frame, without a browser: what stands on it, what it remembers, and that
nobody ever meets a traceback.

Figures are tested as functions, and what is drawn in a real browser in test_browser.py.
"""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import psutil
import pytest
import yaml
from streamlit.testing.v1 import AppTest

from engine.config.registry import TECHNIQUES
from engine.config.technique import Technique
from engine.errors import PlainError
from engine.queries import StepQuery
from engine.recipe import Recipe
from engine.recipe.model_names import BUNDLED_MODELS
from engine.results.schema.glossary import GLOSSARY
from engine.results.schema.record import FINISHED, RunRecord
from engine.results.store.store import Store
from engine.results.store.unfinished import remove_unfinished, unfinished_folder
from engine.runtime.settings import home
from engine.session import Session
from pages.formatting.numbers import megabytes
from pages.widgets import state
from pages.widgets.runs import ten_times
from tests.cases import for_each
from tests.pages.sessions import (
    PAGES,
    PATIENCE_SECONDS,
    ROOT,
    open_page,
    sentences,
    switch_page,
    until,
    words_on,
)
from tests.runs import finished_record, layer, record, tables
from tests.tiny import SENTENCES, tiny

pytestmark = pytest.mark.usefixtures("session")

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "**bold** `code` $x^2$",
    "../../etc/passwd",
    "a" * 5000,
    ":red[x]",
    "no-such/model\n#x",
)
# of those, where it would be read as such
MARKUP = re.compile(r"(?<!\\)(<(img|b)\b|\]\(javascript|\*\*bold|`code|\$x|:red)")
UNKNOWN_RUNS = ("", ",", "zzzz-9999", "../../../etc", "<b>x</b>", "a,b,../c", "%00", "x" * 3000)


# --- the app, and what stands on its pages --------------------------------------------------------


@pytest.fixture
def store_runs():
    """Puts made-up runs where the app finds them; they are gone after the test."""
    store, kept = Store(home()), []

    def keep(*runs: RunRecord) -> None:
        for run in runs:
            store.save(run, tables() if run.status == "done" else None)
            kept.append(run.id)

    yield keep
    for run in kept:
        if store.folder(run).exists():
            store.delete(run)


def keys(app: AppTest, *kinds: str) -> set[str]:
    return {element.key for kind in kinds for element in app.get(kind)}


def only_text(page: str) -> bool:
    """Return True if a user's text has no effect as Markdown or HTML: each special character is
    escaped with a backslash.
    """
    return not MARKUP.search(page)


# --- all pages ------------------------------------------------------------------------------------


@for_each("page", PAGES)
def test_a_page_opens_with_its_title(page, model):
    app = open_page(page, model=model)
    assert not app.exception and not app.error
    assert len(app.title) == 1 and "model-choice" in keys(app, "selectbox")


@for_each("page", ["model", "quantize"])
@for_each("bundled", BUNDLED_MODELS)
def test_bundled_models_open_on_every_page_about_a_model(page, bundled):
    app = open_page(page, model=f"bundled:{bundled}")
    assert sentences(app) == [] and bundled in words_on(app).replace("\\", "")


@pytest.mark.parametrize("page", ["runs", "compare"])
def test_a_page_without_runs_says_what_to_do(page):
    app = open_page(page)
    assert sentences(app) == [] and [info.value.endswith(".") for info in app.info] == [True]


@for_each("page", PAGES)
def test_the_link_names_the_model(page, model):
    assert open_page(page, query={"model": model}).session_state["model"] == model


def test_nothing_heavy_is_imported_by_the_screen(model, text, new_home):
    """Importing torch costs a second and 200 MB, and a page that cannot compute cannot hang."""
    script = Path(__file__).with_name("visit_every_page.py")
    home = os.environ | {"COMPRESSION_EXPLORER_HOME": str(new_home())}
    command = [sys.executable, str(script), model, text]
    visit = subprocess.run(
        command, cwd=ROOT, env=home, capture_output=True, text=True, timeout=2 * PATIENCE_SECONDS
    )
    assert visit.returncode == 0, visit.stderr[-3000:]
    assert visit.stdout.split() == [*PAGES, "nothing-heavy"]


def test_the_glossary_opens_with_every_number_in_it(model):
    app = open_page(model=model)
    app.button(key="glossary").click().run()
    said = "\n".join(text.value for text in app.markdown)
    assert not app.exception and all(
        f"`{name}`" in said and term.meaning in said for name, term in GLOSSARY.items()
    )


# --- models and data that cannot be ---------------------------------------------------------------


@for_each("page", ["model", "quantize"])
@for_each("name", HOSTILE)
def test_a_name_that_is_no_model_gets_one_sentence(page, name):
    app = open_page(page, model=name)
    assert len(sentences(app)) == 1
    assert only_text(words_on(app))


@for_each("page", PAGES)
@for_each("name", HOSTILE[:2])
def test_a_hostile_link_breaks_no_page(page, name):
    app = open_page(page, query={"model": name, "run": name, "runs": name})
    sentences(app)
    assert only_text(words_on(app))


def test_a_model_is_chosen_by_typing_its_directory(model):
    app = open_page("model")
    app.selectbox(key="model-choice").select_index(-1).run()
    app.text_input(key="model-text").input(f"  {model} ").run()
    assert sentences(app) == [] and app.session_state["model"] == model


def test_another_model_can_be_chosen_after_a_wrong_one(model):
    app = open_page("quantize", model="no such model")
    assert sentences(app)
    app.text_input(key="model-text").input(model).run()
    assert sentences(app) == [] and app.button(key="quantize-run").disabled is False


@pytest.mark.parametrize(
    ("widget", "value"), [("skip", "nonsense.*.["), ("skip", "*"), ("include", "<b>nothing</b>")]
)
def test_layer_names_that_fit_nothing_get_one_sentence(model, widget, value):
    app = open_page("quantize", model=model)
    app.text_input(key=f"measure-{model}-{widget}").input(value).run()
    assert len(sentences(app)) == 1
    assert value == "*" or only_text(words_on(app))


@pytest.mark.parametrize(
    ("kind", "widget", "value"), [("text_input", "text", ""), ("number_input", "context", 1)]
)
def test_a_choice_that_is_not_allowed_can_be_mended(model, text, kind, widget, value):
    app = open_page("quantize", model=model)
    before = getattr(app, kind)(key=f"measure-{model}-{widget}").value
    getattr(app, kind)(key=f"measure-{model}-{widget}").set_value(value).run()
    for page in (app.run(), switch_page(switch_page(app, "runs"), "quantize")):
        assert len(sentences(page)) == 1 and page.button(key="quantize-run").disabled
    getattr(app, kind)(key=f"measure-{model}-{widget}").set_value(before).run()
    assert sentences(app) == [] and not app.button(key="quantize-run").disabled


# --- the form -------------------------------------------------------------------------------------


def fields(config: type[Technique]) -> dict[str, dict]:
    return {
        name: field
        for name, field in config.model_json_schema()["properties"].items()
        if name != "technique"
    }


def due(config: type[Technique], chosen: dict) -> set[str]:
    """The options that mean something beside the chosen ones."""
    return {
        name
        for name, field in fields(config).items()
        if all(chosen[other] in allowed for other, allowed in field["when"].items())
        and not any(chosen[other] in barred for other, barred in field["unless"].items())
    }


WIDGETS = (
    "slider",
    "select_slider",
    "selectbox",
    "toggle",
    "number_input",
    "multiselect",
    "text_area",
)


def visible_options(app: AppTest, technique: str) -> set[str]:
    """The options that have a widget."""
    found = keys(app, *WIDGETS)
    return {
        key.removeprefix(f"form-{technique}-")
        for key in found
        if key and key.startswith(f"form-{technique}-")
    }


def form(technique: str, **chosen) -> AppTest:
    """A technique's form alone on a page, which is drawn in a moment, with what the user has chosen
    before.
    """

    def page(name: str) -> None:
        import streamlit as st

        from engine.config.registry import TECHNIQUES
        from engine.errors import PlainError
        from engine.recipe import Recipe
        from pages.widgets.forms.technique_form import technique_form

        try:
            Recipe.from_dict({"steps": [technique_form(TECHNIQUES[name])]})
        except PlainError as error:
            st.error(str(error))

    app = AppTest.from_function(page, default_timeout=PATIENCE_SECONDS, args=(technique,))
    app.session_state["options"] = {technique: chosen}
    return app.run()


@cache
def untouched_form(technique: str) -> AppTest:
    """The form with its defaults, drawn once for all tests that only read it."""
    return form(technique)


# by family
PAGE_OF = {
    "quantization": "quantize",
    "pruning": "prune",
    "low-rank": "factorize",
    "training": "train",
}


@for_each("technique", TECHNIQUES)
def test_the_form_has_a_widget_for_every_option_with_a_meaning(technique):
    app, config = untouched_form(technique), TECHNIQUES[technique]
    assert visible_options(app, technique) == due(
        config, {name: field["default"] for name, field in fields(config).items()}
    )


def deciding(config: type[Technique]) -> dict[str, list]:
    """The options that others depend on, with the values they may take."""
    return {
        other: fields(config)[other].get("enum")
        or fields(config)[other].get("choices")
        or [False, True]
        for field in fields(config).values()
        for other in field["when"]
    }


@for_each(
    ("technique", "option"),
    [(name, option) for name, config in TECHNIQUES.items() for option in deciding(config)],
)
def test_options_come_and_go_with_those_they_depend_on(technique, option):
    config = TECHNIQUES[technique]
    defaults = {name: field["default"] for name, field in fields(config).items()}
    # to be there at all
    needs = {
        other: values[0]
        for other, values in fields(config)[option]["when"].items()
        if defaults[other] not in values
    }
    app = form(technique, **needs)
    for value in deciding(config)[option]:
        chosen = defaults | needs | {option: value}
        widget = app.toggle if isinstance(value, bool) else app.selectbox
        widget(key=f"form-{technique}-{option}").set_value(value).run()
        assert sentences(app) == [] and visible_options(app, technique) == due(config, chosen), (
            value
        )


def test_another_models_blocks_and_heads_are_asked_for_where_it_is_the_student():
    its, shares = {"student_blocks", "student_heads"}, {"blocks", "heads", "width"}
    own, other = (
        visible_options(form("distill"), "distill"),
        visible_options(form("distill", student="distilbert-base-uncased"), "distill"),
    )
    assert shares <= own and not its & own and its <= other and not shares & other


@for_each("technique", TECHNIQUES)
def test_every_widget_says_what_it_is_and_starts_at_the_default(technique):
    app = untouched_form(technique)
    for name, field in fields(TECHNIQUES[technique]).items():
        if name in visible_options(app, technique):
            widget = next(
                w for kind in WIDGETS for w in app.get(kind) if w.key == f"form-{technique}-{name}"
            )
            assert (widget.label, widget.help, widget.value or None) == (
                field["title"],
                field["description"],
                field["default"] or None,
            )


def test_choices_are_still_there_after_a_look_at_another_page(model, text):
    app = open_page("quantize", model=model)
    app.selectbox(key="pick-quantization").set_value("round-to-nearest").run()
    app.slider(key="quantize-round-to-nearest-bits").set_value(3)
    app.text_input(key=f"measure-{model}-text").set_value(text).run()
    switch_page(switch_page(app, "compare"), "quantize")
    assert app.slider(key="quantize-round-to-nearest-bits").value == 3
    assert app.text_input(key=f"measure-{model}-text").value == text


def test_each_model_is_measured_on_data_of_its_own(model, text):
    app = open_page("quantize", model=model)
    app.text_input(key=f"measure-{model}-text").set_value(text).run()
    app.selectbox(key="model-choice").select_index(0).run()
    assert sentences(app) == [] and text not in [field.value for field in app.text_input]


def test_another_technique_and_back_keeps_both_settings(model):
    app = open_page("quantize", model=model)
    app.slider(key="quantize-round-to-nearest-bits").set_value(7).run()
    app.selectbox(key="pick-quantization").set_value("bitsandbytes").run()
    app.selectbox(key="quantize-bitsandbytes-format").set_value("int8").run()
    app.selectbox(key="pick-quantization").set_value("round-to-nearest").run()
    assert app.slider(key="quantize-round-to-nearest-bits").value == 7
    app.selectbox(key="pick-quantization").set_value("bitsandbytes").run()
    assert app.selectbox(key="quantize-bitsandbytes-format").value == "int8"


def test_two_people_do_not_see_each_others_choices(model):
    one, other = open_page("quantize", model=model), open_page("quantize", model=model)
    one.slider(key="quantize-round-to-nearest-bits").set_value(2).run()
    assert other.run().slider(key="quantize-round-to-nearest-bits").value == 4


def test_the_pruning_methods_are_held_against_each_other_on_one_layer(model):
    app = open_page("prune", model=model)
    app.toggle(key="prune-overlap").set_value(True).run()
    assert sentences(app) == [] and "Do the methods keep the same weights?" in words_on(app)


def test_the_ranks_of_all_layers_follow_a_budget(model):
    app = open_page("factorize", model=model)
    assert (
        sentences(app) == []
        and "Which ranks does this budget allow?" in words_on(app)
        and "Singular values of this layer" in words_on(app)
    )
    kept = [value.value for value in app.metric if value.label == "Parameters kept"]
    app.slider(key="factorize-planner-budget").set_value(30).run()
    assert (
        sentences(app) == []
        and [value.value for value in app.metric if value.label == "Parameters kept"] != kept
    )


def test_the_loss_and_the_teachers_words_follow_weight_temperature_and_example(model, text):
    app = open_page(
        "distill",
        model=model,
        choices={model: {"task": {"text": text, "context": 32, "tokens": 2000}}},
    )
    assert sentences(app) == [] and "The teacher's probabilities" in words_on(app)
    loss = app.latex[0].value
    app.slider(key="distill-distill-distill_weight").set_value(1.0).run()
    assert r"\mathrm{CE}" in loss and r"\mathrm{CE}" not in app.latex[0].value
    said = app.caption
    before = [each.value for each in said if each.value.startswith("Example: ")]
    app.slider(key="distill-example").set_value(3).run()
    assert sentences(app) == [] and before != [
        each.value for each in app.caption if each.value.startswith("Example: ")
    ]


def test_other_data_to_learn_from_goes_into_the_recipe_of_what_learns_alone(model, text):
    app = open_page("distill", model=model)
    app.text_input(key=f"training-{model}-train").set_value(text).run()
    assert sentences(app) == [] and app.session_state["training"][model]["train"] == text
    assert sentences(switch_page(app, "quantize")) == []


def test_a_chain_of_convolutions_is_refused_for_a_model_without_any_in_one_sentence(model):
    app = open_page("factorize", model=model, **{"technique-low-rank": "tucker"})
    assert (
        set(sentences(app))
        == {line for line in sentences(app) if "for convolutions" in line}
        != set()
    )


def test_any_pattern_may_be_typed_and_a_wrong_one_gets_one_sentence(model):
    app = open_page("prune", model=model, options={"magnitude": {"pattern": "1:2"}})
    assert sentences(app) == [] and not app.button(key="prune-run").disabled
    app = open_page("prune", model=model, options={"magnitude": {"pattern": "4:3"}})
    assert (
        len(sentences(app)) == 1
        and "less than M" in sentences(app)[0]
        and app.button(key="prune-run").disabled
    )


@pytest.mark.parametrize(
    ("technique", "options", "why"),
    [
        ("magnitude", {"pattern": "3:5"}, "Layers to skip"),
        ("lottery-ticket", {}, "which language models do not have"),
    ],
)
def test_what_the_forecast_refuses_cannot_run_and_is_shown_once(technique, options, why, model):
    app = open_page(
        "prune", model=model, options={technique: options}, **{"technique-pruning": technique}
    )
    for toggle in (each for each in app.toggle if each.key == "prune-overlap"):
        toggle.set_value(True).run()
    assert (
        len(sentences(app)) == 1
        and why in sentences(app)[0]
        and app.button(key="prune-run").disabled
    )


@pytest.mark.parametrize("load", [0.0, 100.0])
def test_a_busy_machine_is_named_below_the_forecast(load, model, monkeypatch):
    monkeypatch.setattr(psutil, "getloadavg", lambda: (load * os.cpu_count(), 0.0, 0.0))
    assert ("The machine is busy" in words_on(open_page("quantize", model=model))) == bool(load)


def test_the_forecast_of_a_student_names_no_compressed_weights(model):
    assert "per compressed weight" in words_on(open_page("quantize", model=model))
    words = words_on(open_page("distill", model=model))
    assert "bits per parameter, about" in words and "per compressed weight" not in words


def test_after_a_refresh_the_form_and_how_it_works_are_those_of_the_run_in_the_address(
    model, store_runs
):
    step = {
        "technique": "gradual",
        "sparsity": 0.6,
        "schedule": "iterative",
        "steps": 50,
        "prune_every": 5,
    }
    store_runs(
        run := record(
            77,
            "done",
            recipe=Recipe.from_dict({"steps": [step]}),
            summary=finished_record(77).summary,
        )
    )
    app = open_page("prune", {"run": run.id}, model=model)
    assert (
        app.selectbox(key="pick-pruning").value == "gradual"
        and app.selectbox(key="prune-gradual-schedule").value == "iterative"
    )
    assert "How it works: Gradual" in words_on(
        app
    ) and "Sparsity after each pruning step" in words_on(app)
    app.selectbox(key="pick-pruning").set_value("magnitude").run()
    titles = [each.value for each in app.markdown if "How it works" in each.value]
    assert ["Gradual" in each for each in titles] == [True, False] and sentences(app) == []
    assert (
        open_page("quantize", {"run": run.id}, model=model).selectbox(key="pick-quantization").value
        == "round-to-nearest"
    )


# --- how it works, on real weights ----------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> str:
    """A model of convolutions."""
    return str(tiny("resnet", tmp_path_factory.mktemp("tiny-resnet")))


@for_each("technique", [name for name, config in TECHNIQUES.items() if config.family in PAGE_OF])
def test_each_technique_is_shown_at_work_on_the_layer_that_is_looked_at(technique, model, pictures):
    model = (
        model
        if "linear" in TECHNIQUES[technique].layer_kinds and technique != "lottery-ticket"
        else pictures
    )
    family = TECHNIQUES[technique].family
    page = PAGE_OF[family]
    app = open_page(page, model=model, **{f"technique-{family}": technique})
    layer = app.selectbox(key=f"{page}-what-if-layer").options[3]
    app.selectbox(key=f"{page}-what-if-layer").set_value(layer).run()
    assert sentences(app) == [] and f"Real weights of {layer}" in words_on(app).replace("\\", "")


def test_a_single_weight_is_found_by_its_numbers_and_its_piece_by_the_arrows(model):
    app = open_page("quantize", model=model)
    app.selectbox(key="quantize-what-if-layer").set_value("model.layers.0.mlp.down_proj").run()
    app.toggle(key="quantize-microscope").set_value(True).run()
    assert (
        "the weight in row 0, column 0 stored?" in words_on(app)
        and app.button(key="quantize-weight-Up-piece").disabled
    )
    app.number_input(key="quantize-weight-Row").set_value(7).run()
    assert "the weight in row 7, column 0 stored?" in words_on(app) and "| Code |" in words_on(app)
    app.button(key="quantize-weight-Right-piece").click().run()
    assert sentences(app) == [] and "the weight in row 7, column 64 stored?" in words_on(app)


def test_a_smaller_layer_takes_the_microscope_to_its_own_last_weight(model):
    app = open_page("quantize", model=model, **{"quantize-weight-at": (40, 171)})
    app.toggle(key="quantize-microscope").set_value(True).run()
    assert sentences(app) == [] and "the weight in row 40, column 47 stored?" in words_on(app)


def test_a_layer_that_cannot_be_opened_is_shown_once(model, monkeypatch):
    ask = Session.ask

    def refuse_steps(self, query, **arguments):
        if isinstance(query, StepQuery):
            raise PlainError("Its inputs cannot be seen.")
        return ask(self, query, **arguments)

    monkeypatch.setattr(Session, "ask", refuse_steps)
    app = open_page(
        "quantize",
        model=model,
        options={"round-to-nearest": {"bits": 6}},
        **{"quantize-microscope": True},
    )
    assert len(sentences(app)) == 1 and words_on(app).count("Not available for these settings") == 2


# --- runs -----------------------------------------------------------------------------------------


def run_on(model: str, text: str, bits: int) -> AppTest:
    """Quantize, with Run just pressed on a small text."""
    app = open_page("quantize", model=model)
    app.slider(key="quantize-round-to-nearest-bits").set_value(bits)
    app.text_input(key=f"measure-{model}-text").set_value(text)
    app.number_input(key=f"measure-{model}-context").set_value(16).run()
    assert sentences(app) == []
    return app.button(key="quantize-run").click().run()


def test_a_run_shows_numbers_and_is_listed(model, text):
    app = run_on(model, text, bits=4)
    assert not app.exception
    until(app, lambda page: len(page.metric) > 4)
    run = app.session_state["run"]
    listed = switch_page(app, "runs")
    assert sentences(listed) == [] and run in str(listed.dataframe[0].value.to_numpy().tolist())


def test_a_student_is_trained_from_the_page_and_its_curves_are_there(model, text):
    chosen = {
        "choices": {model: {"task": {"text": text, "context": 16, "tokens": 300}}},
        "training": {model: {"train": text}},
    }
    app = open_page(
        "distill", model=model, options={"distill": {"steps": 50, "batch": 4}}, **chosen
    )
    assert sentences(app) == []
    app.button(key="distill-run").click().run()
    until(app, lambda page: len(page.metric) > 3 or page.error)
    views = next(pills.options for pills in app.button_group if pills.key == "distill-view")
    assert sentences(app) == [] and {"Curves", "Similarity", "Mistakes"} <= set(views)


def test_the_same_run_twice_is_one_run(model, text, session):
    first, second = (
        until(run_on(model, text, bits=5), lambda page: len(page.metric) > 4).session_state["run"]
        for _ in range(2)
    )
    assert first == second


def test_a_run_under_way_can_be_cancelled(text, session):
    app = open_page("start")
    app.button(key="start-docs-lm").click().run()
    assert not app.exception
    until(app, lambda page: "start-cancel" in keys(page, "button")).button(
        key="start-cancel"
    ).click().run()
    ended = until(
        app, lambda page: session.store.record(page.session_state["run"]).status in FINISHED
    )
    assert session.store.record(ended.session_state["run"]).status == "cancelled"
    until(ended, lambda page: f"start-again-{page.session_state['run']}" in keys(page, "button"))


def test_a_text_that_is_not_there_fails_the_run_with_a_sentence_and_run_again(model, session):
    missing = "/no/such/<b>text</b>.txt"
    app = run_on(model, missing, bits=4)
    run = app.session_state["run"]
    until(app, lambda page: f"quantize-again-{run}" in keys(page, "button"))
    assert len(sentences(app)) == 1 and only_text(words_on(app))
    app.button(key=f"quantize-again-{run}").click().run()
    assert app.session_state["run"] != run
    until(app, lambda page: session.store.record(page.session_state["run"]).status in FINISHED)


@pytest.mark.parametrize("status", ["failed", "cancelled", "interrupted"])
def test_the_state_of_a_run_is_shown_as_text(status, store_runs):
    message = (
        "The text <img src=x onerror=alert(1)> [a](javascript:alert(1)) is missing; give another."
    )
    store_runs(record(1, status, message=message))
    app = open_page("runs", run="run-0001")
    assert not app.exception and only_text(words_on(app))
    assert "runs-again-run-0001" in keys(app, "button")


def test_a_run_that_ended_too_soon_says_when_finished_layers_are_kept(store_runs):
    lost = record(1, "failed", message="The process was killed.")
    store_runs(lost)
    assert "resumes from there" not in words_on(open_page("runs", run="run-0001"))
    folder = unfinished_folder(lost.key, "here")
    (folder / "block-00001").mkdir(parents=True)
    assert "resumes from there" in words_on(open_page("runs", run="run-0001"))
    remove_unfinished(lost.key)
    assert not folder.exists()


def test_layers_that_were_kept_are_listed_with_the_reason_as_text(store_runs):
    run = finished_record(1)
    store_runs(run)
    reason = "layers.skip names <b>it</b>"
    kept = layer("head", technique="", relative_error=float("nan"), note=reason)
    Store(home()).save(run, tables(layer(), kept))
    app = open_page("runs", run="run-0001")
    assert "1 layer unchanged: details" in [each.label for each in app.expander]
    assert "head" in words_on(app) and only_text(words_on(app))


def test_delete_forgets_a_run(store_runs, session):
    store_runs(finished_record(1), finished_record(2))
    app = open_page("runs", run="run-0001")
    app.button(key="runs-delete").click().run()
    assert sentences(app) == []
    assert {"run-0001", "run-0002"} & {run.id for run in session.store.records()} == {"run-0002"}
    assert "run-0001" not in str(app.dataframe[0].value.to_numpy().tolist())


def test_a_run_deleted_by_somebody_else_breaks_no_page(store_runs):
    store_runs(finished_record(1))
    app = open_page("start", run="run-0001")
    Store(home()).delete("run-0001")
    for page in (
        app.run(),
        switch_page(app, "quantize"),
        switch_page(app, "runs"),
        switch_page(app, "compare"),
    ):
        assert not page.exception


def test_an_unreadable_run_is_listed_with_what_to_do_and_can_be_deleted(store_runs, session):
    store_runs(finished_record(1))
    folder = Store(home()).folder("run-0001")
    (folder / "record.json").write_text("{")
    app = open_page("runs", run="run-0001")
    assert "unreadable" in str(app.dataframe[0].value.to_numpy().tolist())
    assert len(sentences(app)) == 1
    app.button(key="runs-delete").click().run()
    assert not folder.exists()


def test_a_run_without_its_tables_gets_a_sentence(store_runs):
    store_runs(finished_record(1))
    for file in Store(home()).folder("run-0001").glob("*.parquet"):
        file.write_bytes(b"nothing")
    assert len(sentences(open_page("runs", run="run-0001"))) == 1
    assert len(sentences(open_page("compare", query={"runs": "run-0001"}))) == 1


VIEWS = [
    "Layers",
    "Weights",
    "Levels",
    "Channels",
    "Sensitivity",
    "Salience",
    "Bits",
    "Inputs",
    "Outliers",
    "Bytes",
    "Speed",
    "Text",
    "Recipe",
]


def test_every_view_of_a_finished_run_opens(store_runs):
    store_runs(finished_record(1))
    for view in VIEWS:
        app = open_page("runs", run="run-0001")
        app.get("button_group")[0].set_value(view).run()
        assert sentences(app) == [], view


# --- compare --------------------------------------------------------------------------------------


def test_compare_takes_its_runs_from_the_link(store_runs):
    store_runs(finished_record(1), finished_record(2), finished_record(3), finished_record(4))
    app = open_page("compare", query={"runs": "run-0001,run-0003"})
    assert app.multiselect(key="compare-runs").value == ["run-0001", "run-0003"]


def test_the_link_follows_the_choice(store_runs):
    store_runs(finished_record(1), finished_record(2), finished_record(3))
    app = open_page("compare", query={"runs": "run-0001"})
    app.multiselect(key="compare-runs").set_value(["run-0003", "run-0002"]).run()
    assert sentences(app) == [] and app.query_params["runs"] in (
        "run-0003,run-0002",
        ["run-0003,run-0002"],
    )


def test_a_comparison_survives_a_look_at_another_page(store_runs):
    store_runs(finished_record(1), finished_record(2), finished_record(3))
    app = open_page("compare", query={"runs": "run-0001,run-0002"})
    app.multiselect(key="compare-runs").set_value(["run-0003"]).run()
    assert switch_page(switch_page(app, "runs"), "compare").multiselect(
        key="compare-runs"
    ).value == ["run-0003"]


def test_no_choice_stays_no_choice(store_runs):
    store_runs(finished_record(1), finished_record(2))
    app = open_page("compare")
    app.multiselect(key="compare-runs").set_value([]).run()
    assert app.run().multiselect(key="compare-runs").value == [] and len(app.info) == 1


def test_runs_that_do_not_exist_are_passed_over(store_runs):
    store_runs(finished_record(1), finished_record(2), record(3, "failed", message="It failed."))
    for unknown in UNKNOWN_RUNS:
        app = open_page("compare", query={"runs": f"{unknown},run-0002,run-0003,run-0002"})
        assert sentences(app) == [], unknown
        assert app.multiselect(key="compare-runs").value == ["run-0002"], unknown


def test_only_finished_runs_are_offered(store_runs):
    store_runs(
        finished_record(1),
        record(2, "failed", message="It failed."),
        record(3, "cancelled", message="It was canceled."),
    )
    offered = " ".join(open_page("compare").multiselect(key="compare-runs").options)
    assert [run for run in ("run-0001", "run-0002", "run-0003") if run in offered] == ["run-0001"]


def test_runs_with_equal_settings_have_different_labels(store_runs):
    store_runs(finished_record(1), finished_record(2))
    labels = (
        open_page("compare", query={"runs": "run-0001,run-0002"})
        .multiselect(key="compare-runs")
        .options
    )
    assert len(set(labels)) == len(labels) >= 2


# --- ten times smaller ---------------------------------------------------------------------------


@pytest.fixture
def short_recipe(tmp_path, monkeypatch):
    """The bundled recipe for a tiny teacher and short texts."""
    for split, count in {"train": 24, "validation": 9, "test": 9}.items():
        lines = [
            f"{split} {number} {SENTENCES[number % 3]},{number % 3}" for number in range(count)
        ]
        (tmp_path / f"{split}.csv").write_text(
            "\n".join(["text,label", *(line.replace(", ", " ") for line in lines)])
        )
    recipe = yaml.safe_load(ten_times.RECIPE.read_text())
    recipe["model"] = str(tiny("bert", tmp_path / "teacher"))
    recipe["task"] |= {
        "data": str(tmp_path / "test.csv"),
        "also": str(tmp_path / "validation.csv"),
        "length": 32,
    }
    recipe["training"] = {"train": str(tmp_path / "train.csv")}
    recipe["steps"][0] |= {"steps": 4, "batch": 4}
    monkeypatch.setattr(ten_times, "RECIPE", tmp_path / "ten-times.yaml")
    ten_times.RECIPE.write_text(yaml.safe_dump(recipe))


def tables_on(app: AppTest) -> list[list[str]]:
    """The models that each table of the page names."""
    return [frame.value["Model"].tolist() for frame in app.dataframe if "Model" in frame.value]


def test_the_first_visit_shows_the_result_of_the_stored_example():
    app = open_page("ten_times")
    assert tables_on(app) == [["Teacher", "Student", "4-bit student"]] * 2 and len(app.metric) == 3
    assert app.metric[0].delta == "uncompressed" and app.metric[2].delta == "7.2 times smaller"
    assert "A stored run of the same recipe" in words_on(app)


def test_a_new_run_replaces_the_stored_example(short_recipe):
    app = open_page("ten_times")
    app.button(key="ten-times-run").click().run()
    until(app, lambda app: "Your run" in words_on(app))
    assert not app.exception and sentences(app) == []
    assert tables_on(app) == [
        ["Teacher", "Student", "4-bit student"]
    ] * 2 and "A stored run of the same recipe" not in words_on(app)
    run = state.session().store.record(app.session_state["run"])
    assert app.metric[2].value == megabytes(run.summary.result.size_bytes)


def test_a_refresh_keeps_the_model_that_was_chosen(model):
    app = open_page("model", model=model)
    kept = app.query_params["model"]
    again = open_page("quantize", {"model": kept if isinstance(kept, str) else kept[-1]})
    assert again.session_state["model"] == model and sentences(again) == []
