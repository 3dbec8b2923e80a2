"""Pages for masked language models and models that also read images: forms with working defaults,
and runs.
"""

import pytest

from tests.architectures import MASKED, MULTIMODAL, saved
from tests.cases import for_each
from tests.pages.sessions import opened, sentences, until, words_on

pytestmark = pytest.mark.usefixtures("session")


@pytest.fixture(scope="module")
def masked(tmp_path_factory) -> str:
    return str(saved(MASKED["bert"], tmp_path_factory.mktemp("masked") / "model", "encoder"))


@pytest.fixture(scope="module")
def reads_images(tmp_path_factory) -> str:
    return str(saved(MULTIMODAL["gemma3"], tmp_path_factory.mktemp("multimodal") / "model"))


@for_each("page", ["model", "quantize", "prune", "distill", "pipeline"])
@for_each("kind", ["masked", "reads_images"])
def test_every_page_about_a_model_opens_for_them(page, kind, request):
    assert sentences(opened(page, model=request.getfixturevalue(kind))) == []


def test_a_masked_language_model_runs_with_the_forms_defaults(masked, text):
    app = opened("quantize", model=masked)
    assert app.number_input(key=f"measure-{masked}-mask_share").value == 0.15
    assert app.number_input(key=f"measure-{masked}-context").value == 128  # as many as it can see
    app.text_input(key=f"measure-{masked}-text").set_value(text)
    app.number_input(key=f"measure-{masked}-context").set_value(16).run()
    assert sentences(app) == []
    app.button(key="quantize-run").click().run()
    until(app, lambda page: len(page.metric) > 4 or page.error)
    assert sentences(app) == [] and "masked" in words_on(app)


def test_a_share_of_masked_tokens_goes_into_the_recipe(masked, text):
    app = opened("quantize", model=masked)
    app.number_input(key=f"measure-{masked}-mask_share").set_value(0.4).run()
    assert (
        sentences(app) == [] and app.session_state["choices"][masked]["task"]["mask_share"] == 0.4
    )


def test_what_stays_of_a_model_that_reads_images_is_said_when_it_is_opened(reads_images):
    assert "parts for images or sound stay as they are" in words_on(
        opened("model", model=reads_images)
    )
