from dataclasses import replace

import numpy as np
import pytest

from engine.evaluation import EvaluationResult, cached_baseline
from engine.evaluation.data.cache import data_folder
from engine.models.loading import resolve_model
from engine.recipe import Recipe
from engine.recipe.tasks import LanguageModeling
from engine.results.schema.record import Protocol
from tests.tiny import tiny

MEASURED = EvaluationResult(
    {"perplexity": 12.5},
    Protocol(task="t", data="d", fingerprint="f", measure="m"),
    np.arange(5, dtype=np.int32),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return resolve_model(str(tiny("llama", tmp_path_factory.mktemp("llama"))))


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "a.txt").write_text("some words")
    return Recipe(task=LanguageModeling(text=str(tmp_path / "a.txt")))


def again():
    raise AssertionError("measured again")


def test_a_model_is_measured_once(recipe, folder):
    first, second = (
        cached_baseline(recipe, folder, measure) for measure in (lambda: MEASURED, again)
    )
    assert (first.scores, first.protocol) == (second.scores, second.protocol)
    assert np.array_equal(first.guesses, second.guesses) and second.guesses.dtype == np.int32


@pytest.mark.parametrize(
    "change", [{"dtype": "bfloat16"}, {"device": "cpu"}, {"task": LanguageModeling()}]
)
def test_whatever_changes_the_numbers_measures_again(recipe, folder, change):
    cached_baseline(recipe, folder, lambda: MEASURED)
    with pytest.raises(AssertionError):
        cached_baseline(recipe.model_copy(update=change), folder, again)


def test_another_revision_or_text_is_measured_again(recipe, folder, tmp_path):
    cached_baseline(recipe, folder, lambda: MEASURED)
    with pytest.raises(AssertionError):
        cached_baseline(recipe, replace(folder, revision="other"), again)
    (tmp_path / "a.txt").write_text("other words")
    with pytest.raises(AssertionError):
        cached_baseline(recipe, folder, again)


def test_a_step_or_a_seed_changes_nothing_of_the_original(recipe, folder):
    cached_baseline(recipe, folder, lambda: MEASURED)
    assert (
        cached_baseline(recipe.model_copy(update={"seed": 7}), folder, again).scores
        == MEASURED.scores
    )


def test_data_that_may_change_behind_its_name_is_measured_every_time(folder):
    recipe = Recipe(task=LanguageModeling(text="someone/words"))
    cached_baseline(recipe, folder, lambda: MEASURED)
    with pytest.raises(AssertionError):
        cached_baseline(recipe, folder, again)


def test_a_damaged_measurement_is_made_again(recipe, folder):
    cached_baseline(recipe, folder, lambda: MEASURED)
    [kept] = data_folder().glob("baseline-*.npz")
    for damage in (b"", kept.read_bytes()[:100], b"nonsense"):
        kept.write_bytes(damage)
        assert cached_baseline(recipe, folder, lambda: MEASURED).scores == MEASURED.scores
