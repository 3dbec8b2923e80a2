"""Pages for masked language models and models that also read images: forms with working defaults,
and runs.
"""

import pytest

from tests.architectures import MASKED, MULTIMODAL, save_random_model
from tests.cases import for_each
from tests.pages.sessions import open_page, sentences, until, words_on

pytestmark = pytest.mark.usefixtures("session")


@pytest.fixture(scope="module")
def masked_model(tmp_path_factory) -> str:
    return str(
        save_random_model(MASKED["bert"], tmp_path_factory.mktemp("masked") / "model", "encoder")
    )


@pytest.fixture(scope="module")
def reads_images(tmp_path_factory) -> str:
    return str(
        save_random_model(MULTIMODAL["gemma3"], tmp_path_factory.mktemp("multimodal") / "model")
    )


@for_each("page", ["model", "quantize", "prune", "distill", "pipeline"])
@for_each("kind", ["masked_model", "reads_images"])
def test_every_page_about_a_model_opens_for_them(page, kind, request):
    assert sentences(open_page(page, model=request.getfixturevalue(kind))) == []


def test_a_masked_language_model_runs_with_the_forms_defaults(masked_model, text):
    app = open_page("quantize", model=masked_model)
    assert app.number_input(key=f"measure-{masked_model}-mask_share").value == 0.15
    assert (
        app.number_input(key=f"measure-{masked_model}-context").value == 128
    )  # as many as it can see
    app.text_input(key=f"measure-{masked_model}-text").set_value(text)
    app.number_input(key=f"measure-{masked_model}-context").set_value(16).run()
    assert sentences(app) == []
    app.button(key="quantize-run").click().run()
    until(app, lambda page: len(page.metric) > 4 or page.error)
    assert sentences(app) == [] and "masked" in words_on(app)


def test_a_share_of_masked_tokens_goes_into_the_recipe(masked_model, text):
    app = open_page("quantize", model=masked_model)
    app.number_input(key=f"measure-{masked_model}-mask_share").set_value(0.4).run()
    assert (
        sentences(app) == []
        and app.session_state["choices"][masked_model]["task"]["mask_share"] == 0.4
    )


def test_opening_a_multimodal_model_shows_what_stays_unchanged(reads_images):
    assert "parts for images or sound are unchanged" in words_on(
        open_page("model", model=reads_images)
    )
