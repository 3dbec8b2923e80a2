"""The page that chains steps: what is added, moved and removed, what is refused, and that a
recipe comes back as it was saved.
"""

from base64 import urlsafe_b64encode
from zlib import compress

import pytest
from streamlit.testing.v1 import AppTest

from engine.config.technique import Technique
from engine.recipe import MAX_STEPS, Recipe
from engine.recipe.model_names import ASSETS
from pages.widgets.recipes.pipeline_editor import StepEntry
from pages.widgets.recipes.recipe_link import decoded_recipe, encoded_recipe
from tests.cases import for_each
from tests.pages.sessions import open_page, sentences, switch_page, until, words_on

pytestmark = pytest.mark.usefixtures("session")
PRUNED, ROUNDED = (
    {"technique": "magnitude", "sparsity": 0.6},
    {"technique": "round-to-nearest", "bits": 3},
)


@pytest.fixture
def pipeline(model, text):
    """The page with these steps, measured in a moment."""

    def page(*steps: dict) -> AppTest:
        choices = {
            model: {
                "task": {"kind": "language-modeling", "text": text, "context": 32, "tokens": 512}
            }
        }
        links = [
            StepEntry(
                number, step["technique"], {k: v for k, v in step.items() if k != "technique"}
            )
            for number, step in enumerate(steps, 1)
        ]
        beside = {
            model: {"speed": False, "calibration": {"text": text, "samples": 2, "context": 32}}
        }
        remembered = {
            "chain": links,
            "chain-numbers": len(links),
            "choices": choices,
            "pipeline-other-fields": beside,
        }
        return open_page("pipeline", model=model, **remembered)

    return page


def chain_techniques(app: AppTest) -> list[str]:
    return [link.technique for link in app.session_state["chain"]]


def recipe_on(app: AppTest) -> Recipe:
    """Recipe that the page shows."""
    return Recipe.from_yaml(next(code.value for code in app.code if code.language == "yaml"))


def choose_technique(app: AppTest, family: str, technique: str) -> AppTest:
    app.get("button_group")[0].set_value(family).run()
    return app.selectbox(key=f"pick-{family}").set_value(technique).run()


# --- the chain ------------------------------------------------------------------------------------


def test_steps_of_any_family_are_added_each_where_it_can_be_done(pipeline):
    app = pipeline()
    assert "No steps yet" in words_on(app) and app.button(key="pipeline-run").disabled
    for family, technique in (
        ("quantization", "gptq"),
        ("pruning", "magnitude"),
        ("distillation", "distill"),
        ("training", "qlora"),
    ):
        choose_technique(app, family, technique)
        if not app.button(key="chain-add").disabled:
            app.button(key="chain-add").click().run()
    # from the last to the first; QLoRA would round again what is rounded
    assert chain_techniques(app) == ["distill", "magnitude", "gptq"]
    assert sentences(app) == [] and not app.button(key="pipeline-run").disabled


def test_a_step_without_a_place_says_why_and_cannot_be_added(pipeline):
    app = choose_technique(pipeline(ROUNDED), "quantization", "gptq")
    assert app.button(
        key="chain-add"
    ).disabled and "GPTQ cannot come after Round to nearest" in words_on(app)


def test_an_order_that_is_not_possible_gets_one_sentence_at_once_and_moving_back_mends_it(pipeline):
    app = pipeline(PRUNED, ROUNDED)
    assert sentences(app) == []
    app.button(key="step-1-down").click().run()
    assert (
        chain_techniques(app) == ["round-to-nearest", "magnitude"]
        and app.button(key="pipeline-run").disabled
    )
    [why] = sentences(app)
    assert "cannot come after Round to nearest" in why and "swap the two" in why
    app.button(key="step-1-up").click().run()
    assert (
        sentences(app) == []
        and chain_techniques(app) == ["magnitude", "round-to-nearest"]
        and not app.button(key="pipeline-run").disabled
    )


def test_a_step_can_be_removed(pipeline):
    app = pipeline(PRUNED, ROUNDED)
    app.button(key="step-1-remove").click().run()
    assert chain_techniques(app) == ["round-to-nearest"] and [
        step.bits for step in recipe_on(app).steps
    ] == [3]


def test_options_of_a_step_go_with_it_wherever_it_moves_and_stay_after_other_pages(pipeline):
    app = pipeline(PRUNED, ROUNDED)
    app.button(key="step-2-options").click().run()
    app.slider(key="step-2-round-to-nearest-bits").set_value(6).run()
    app.button(key="step-2-up").click().run()
    app.button(key="step-2-down").click().run()
    switch_page(switch_page(app, "quantize"), "pipeline")
    assert [getattr(step, "bits", None) for step in recipe_on(app).steps] == [None, 6]
    assert app.slider(key="step-2-round-to-nearest-bits").value == 6


def test_one_technique_twice_has_settings_of_its_own_each_time(pipeline):
    app = pipeline(
        {"technique": "fine-tune", "steps": 100}, {"technique": "fine-tune", "steps": 200}, ROUNDED
    )
    assert sentences(app) == [] and [
        getattr(step, "steps", None) for step in recipe_on(app).steps
    ] == [100, 200, None]


def test_the_forecast_is_that_of_all_steps_together(pipeline):
    words = {len(steps): words_on(pipeline(*steps)) for steps in ((PRUNED, ROUNDED), (ROUNDED,))}
    bits = {
        count: float(said.split(" per compressed weight")[0].rpartition("(")[2])
        for count, said in words.items()
    }
    assert bits[2] < bits[1] < 4


def test_the_open_step_is_looked_at_on_one_layer_after_those_before_it(pipeline):
    app = pipeline(PRUNED, ROUNDED)
    app.button(key="step-2-options").click().run()
    app.toggle(key="pipeline-look").set_value(True).run()
    bits = [float(metric.value) for metric in app.metric if metric.label == "Bits per weight"]
    assert sentences(app) == [] and len(bits) == 1 and bits[0] < 3


def test_a_step_after_training_cannot_be_tried_on_one_layer(pipeline):
    tuned = {"technique": "fine-tune", "steps": 100}
    app = pipeline(tuned, ROUNDED)
    app.button(key="step-2-options").click().run()
    assert not [toggle for toggle in app.toggle if toggle.key == "pipeline-look"]


def test_a_step_of_a_familys_page_comes_along_as_it_is_set_there(pipeline):
    app = switch_page(pipeline(ROUNDED), "prune")
    app.slider(key="prune-magnitude-sparsity").set_value(0.7).run()
    app.button(key="prune-pipeline").click().run()
    assert (
        chain_techniques(app) == ["magnitude", "round-to-nearest"]
        and recipe_on(app).steps[0].sparsity == 0.7
    )
    assert sentences(switch_page(app, "quantize")) == []  # whose own step stands alone


# --- running it -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline_run(session, model, text) -> str:
    """The id of a run of both steps."""
    task = {"kind": "language-modeling", "text": text, "context": 32, "tokens": 512}
    calibration = {"text": text, "samples": 2, "context": 32}
    recipe = Recipe.from_dict(
        {
            "model": model,
            "task": task,
            "calibration": calibration,
            "steps": [PRUNED, ROUNDED],
            "speed": False,
        }
    )
    return session.submit(recipe).id


def test_a_run_of_the_chain_ends_with_its_steps_side_by_side(pipeline, pipeline_run, session):
    app = pipeline(PRUNED, ROUNDED)
    app.button(key="pipeline-run").click().run()
    assert app.session_state["run"] == pipeline_run  # the same recipe is one run
    until(app, lambda app: len(app.metric) >= 4)
    assert sentences(app) == [] and "Size and quality after each step" in words_on(app)
    assert set(session.store.tables(pipeline_run).stages.step) == {0, 1, 2}


def test_a_run_is_opened_again_to_be_changed(pipeline_run, model, session):
    app = until(open_page("runs", run=pipeline_run), lambda app: len(app.metric) >= 4)
    next(group for group in app.get("button_group") if "Recipe" in group.options).set_value(
        "Recipe"
    ).run()
    next(button for button in app.button if button.label == "Open in the pipeline").click().run()
    assert sentences(app) == [] and recipe_on(app) == session.store.record(pipeline_run).recipe


# --- a recipe as a file ---------------------------------------------------------------------------


def upload(app: AppTest, content: bytes) -> AppTest:
    app.file_uploader[0].set_value(("recipe.yaml", content, "text/yaml"))
    return app.run()


@pytest.fixture
def saved_recipe(model, text) -> Recipe:
    """One that says something of everything."""
    return Recipe.from_dict(
        {
            "model": model,
            "seed": 7,
            "device": "cpu",
            "dtype": "float32",
            "speed": False,
            "layers": {"skip": ["lm_head", "*.up_proj"]},
            "task": {"kind": "language-modeling", "text": text, "context": 48, "tokens": 480},
            "training": {"train": text, "samples": 64},
            "calibration": {"text": text, "samples": 3, "context": 32},
            "steps": [
                {"technique": "fine-tune", "steps": 10, "batch": 4},
                PRUNED,
                {"technique": "gptq", "bits": 3, "group_size": 48},
            ],
        }
    )


def test_a_saved_recipe_comes_back_whole_whatever_was_on_the_page(saved_recipe, pipeline):
    app = upload(pipeline(ROUNDED), saved_recipe.to_yaml().encode())
    assert (
        sentences(app) == []
        and recipe_on(app) == saved_recipe
        and recipe_on(app).key() == saved_recipe.key()
    )


def test_a_recipe_of_another_model_brings_its_model_along(saved_recipe):
    app = upload(open_page("pipeline"), saved_recipe.to_yaml().encode())
    assert (
        sentences(app) == []
        and app.session_state["model"] == saved_recipe.model
        and recipe_on(app) == saved_recipe
    )
    assert app.text_input(key="model-text").value == saved_recipe.model


def test_what_an_opened_recipe_says_can_be_changed_on_the_page(saved_recipe, pipeline):
    app = upload(pipeline(), saved_recipe.to_yaml().encode())
    app.number_input(key=f"measure-{saved_recipe.model}-1-context").set_value(16).run()
    assert recipe_on(app).task.context == 16 and recipe_on(app).steps == saved_recipe.steps


def test_calibration_and_seed_are_chosen_on_the_page_too(saved_recipe, pipeline):
    app = upload(pipeline(), saved_recipe.to_yaml().encode())
    app.number_input(key=f"measure-{saved_recipe.model}-1-calibration-samples").set_value(5)
    app.number_input(key=f"measure-{saved_recipe.model}-1-seed").set_value(11).run()
    now = recipe_on(app)
    assert (
        sentences(app) == []
        and now.seed == 11
        and now.calibration == saved_recipe.calibration.model_copy(update={"samples": 5})
        and now.task == saved_recipe.task
    )


@for_each(
    ("content", "words"),
    [
        (b"\xff\xfe\x00\x01", "is not UTF-8 text"),
        (b"steps: [" + b"{technique: fine-tune}, " * 1_000 + b"]", "at most 32"),
        (
            b"a0: &a0 {k: 1}\n"
            + b"".join(
                b"a%d: &a%d {<<: [%s]}\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9))
                for n in range(1, 20)
            ),
            "more than 4,096",
        ),
        (b"steps: [", "not valid YAML"),
        (b"- a list", "A recipe is a mapping"),
        (b"steps: [{technique: magic}]", "not a known technique"),
        (b"steps: [{technique: bitsandbytes}, {technique: magnitude}]", "swap the two"),
        (b"steps: [{technique: gptq, bits: 99}]", "Step 1, Bits (bits)"),
        (b"model: '<b>x</b>'\nstops: []", "there is no option"),
    ],
)
def test_a_file_that_is_no_recipe_gets_one_sentence_and_changes_nothing(content, words, pipeline):
    app = pipeline(PRUNED)
    before = recipe_on(app)
    [why] = sentences(upload(app, content))
    assert words in why.replace("\\", "") and recipe_on(app) == before
    app.file_uploader[0].set_value(None)
    assert sentences(app.run()) == []


# --- a recipe in the address ----------------------------------------------------------------------


def address(app: AppTest) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else value[-1]
        for name, value in app.query_params.items()
    }


def test_a_refresh_keeps_everything_on_the_page(saved_recipe, pipeline):
    app = upload(pipeline(ROUNDED), saved_recipe.to_yaml().encode())
    again = open_page("pipeline", address(app))
    assert (
        sentences(again) == []
        and recipe_on(again) == saved_recipe
        and again.session_state["model"] == saved_recipe.model
    )


def test_a_link_opens_once_and_what_is_changed_after_that_stays(saved_recipe, pipeline):
    app = open_page("pipeline", {"recipe": encoded_recipe(saved_recipe)})
    app.button(key="step-1-remove").click().run()
    assert (
        chain_techniques(app)
        == ["magnitude", "gptq"]
        == [step.technique for step in decoded_recipe(address(app)["recipe"]).steps]
    )
    for number in (2, 3):
        app.button(key=f"step-{number}-remove").click().run()
    assert "recipe" not in address(app) and "No steps yet" in words_on(app)


def test_a_choice_that_is_not_allowed_leaves_the_address_as_it_was(saved_recipe, pipeline):
    app = open_page("pipeline", {"recipe": encoded_recipe(saved_recipe)})
    app.text_input(key=f"measure-{saved_recipe.model}-1-text").set_value("").run()
    assert len(sentences(app)) == 1 and decoded_recipe(address(app)["recipe"]) == saved_recipe


@for_each(
    ("text", "words"),
    [
        ("no base64", "is damaged"),
        ("AAAA", "is damaged"),
        ("\u00e9", "is damaged"),
        (urlsafe_b64encode(compress(b"[" * 9_000)).decode(), "more than 12 levels"),
        (
            urlsafe_b64encode(compress(b'"' + b"a" * 10_000_000 + b'"')).decode(),
            "longer than 64.0 kB",
        ),
        (
            urlsafe_b64encode(
                compress(b'{"steps": [' + b'{"technique": "gptq"},' * 1_500 + b"]}")
            ).decode(),
            "more than 4,096",
        ),
        (
            urlsafe_b64encode(
                compress(b'{"steps": [' + b",".join([b'{"technique": "fine-tune"}'] * 500) + b"]}")
            ).decode(),
            "at most 32",
        ),
        ("A" * 300_000, "too long"),
        (urlsafe_b64encode(compress(b"[1]")).decode(), "A recipe is a mapping"),
        (
            urlsafe_b64encode(
                compress(b'{"model": "x", "steps": [{"technique": "magic"}]}')
            ).decode(),
            "not a known technique",
        ),
    ],
)
def test_an_address_without_a_recipe_gets_one_sentence_and_an_empty_page(text, words):
    app = open_page("pipeline", {"recipe": text})
    [why] = sentences(app)
    assert (
        words in why.replace("\\", "")
        and "No steps yet" in words_on(app)
        and "recipe" not in address(app)
    )


def test_a_pipeline_takes_no_more_steps_than_a_recipe_may_have(model):
    recipe = Recipe.from_dict({"model": model, "steps": [{"technique": "fine-tune"}] * MAX_STEPS})
    app = open_page("pipeline", {"recipe": encoded_recipe(recipe)})
    assert sentences(app) == [] and len(chain_techniques(app)) == MAX_STEPS
    assert app.button(key="chain-add").disabled and f"at most {MAX_STEPS} steps" in words_on(app)


def test_the_recipes_that_come_along_are_opened_by_name():
    app = open_page("pipeline")
    app.selectbox(key="pipeline-own-0").set_value("first-look").run()
    assert sentences(app) == [] and recipe_on(app) == Recipe.from_yaml(
        (ASSETS / "recipes" / "first-look.yaml").read_text()
    )


def test_a_recipe_whose_task_is_not_the_models_is_measured_as_the_model_can(model, pipeline):
    """A person sees in the recipe what will be measured."""
    other = Recipe.from_dict(
        {"model": model, "task": {"kind": "text-classification"}, "steps": [ROUNDED]}
    )
    app = upload(pipeline(), other.to_yaml().encode())
    assert sentences(app) == [] and recipe_on(app).task.kind == "language-modeling"


def test_a_link_is_what_a_recipe_calls_a_step():
    step: Technique = Recipe.from_dict({"steps": [PRUNED]}).steps[0]
    assert StepEntry(1, "magnitude", {"sparsity": 0.6}).step.items() <= step.model_dump().items()
