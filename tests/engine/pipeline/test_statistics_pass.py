"""Missing calibration data is noted by forecast and run, and refused if the result would be
meaningless.
"""

import pytest

from engine.__main__ import outcome_text
from engine.errors import PlainError
from engine.pipeline.run import run
from engine.recipe import Recipe
from tests.answers import forecast
from tests.tiny import SENTENCES, tiny

WORDS = " ".join(SENTENCES * 40)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("models") / "llama")


def recipe_on(model, folder, characters, samples=64, context=64, technique="gptq", text=WORDS):
    (folder / "short.txt").write_text(WORDS[:characters])
    (folder / "test.txt").write_text(text)
    return Recipe.from_dict(
        {
            "model": str(model),
            "task": {
                "kind": "language-modeling",
                "text": str(folder / "test.txt"),
                "context": 32,
                "tokens": 256,
            },
            "calibration": {
                "text": str(folder / "short.txt"),
                "samples": samples,
                "context": context,
            },
            "steps": [{"technique": technique}],
            "device": "cpu",
            "speed": False,
        }
    )


def test_forecast_run_and_shell_report_the_shortfall(model, tmp_path):
    recipe = recipe_on(model, tmp_path, 120)
    said = (
        "Calibration used 1 of the 64 requested windows of 64 tokens "
        "(Calibration examples (calibration.samples)); "
        "short.txt has no more."
    )
    outcome = run(recipe)
    assert said in forecast(recipe).notes and outcome.summary.notes.count(said) == 1
    assert said in outcome_text(outcome).splitlines()


def test_enough_data_gives_no_note(model, tmp_path):
    recipe = recipe_on(model, tmp_path, len(WORDS), samples=4)
    assert not any(
        "Calibration used" in note for note in (*forecast(recipe).notes, *run(recipe).summary.notes)
    )


@pytest.mark.parametrize("technique", ["gptq", "sparsegpt"])
def test_too_little_data_is_refused_by_forecast_and_run(technique, model, tmp_path):
    """172 input channels need eleven tokens."""
    few, enough = (recipe_on(model, tmp_path, 400, 1, context, technique) for context in (10, 11))
    for attempt in (run, lambda recipe: forecast(recipe)):
        with pytest.raises(
            PlainError,
            match=(
                r"gives 10 tokens, too few for .*down_proj has 172 input channels and needs at "
                r"least 11 "
            ),
        ):
            attempt(few)
    assert forecast(enough).layers and run(enough).summary.result.size_bytes


def test_methods_without_gram_matrix_accept_little_data(model, tmp_path):
    assert run(recipe_on(model, tmp_path, 400, 1, 4, "magnitude")).summary.result.size_bytes


def test_assumptions_about_the_test_data_are_noted(model, tmp_path):
    recipe = recipe_on(model, tmp_path, len(WORDS), samples=4)
    (tmp_path / "test.txt").write_bytes(WORDS.replace("weights", "wéights").encode("latin-1"))
    # measured, then remembered
    for notes in (
        forecast(recipe).notes,
        run(recipe).summary.notes,
        run(recipe).summary.notes,
    ):
        assert (
            sum("test.txt is not UTF-8 and was read as Windows-1252" in note for note in notes) == 1
        )
