from engine.forecast import data_volume as readings
from engine.forecast.duration import EXTRACTION
from engine.recipe import Recipe
from tests.answers import forecast

ROUNDING, GPTQ = {"technique": "round-to-nearest"}, {"technique": "gptq"}


def test_a_corpus_that_is_not_yet_extracted_takes_its_time(folders, monkeypatch):
    recipe = {
        "model": str(folders["llama"]),
        "task": {"kind": "language-modeling", "context": 64, "tokens": 1000},
        "steps": [ROUNDING],
    }
    held_out = forecast(recipe).seconds
    monkeypatch.setattr(readings, "is_corpus_cached", lambda task: False)
    assert held_out < forecast(recipe).seconds - EXTRACTION / 2


def test_the_calibration_split_of_a_classifier_may_have_to_be_extracted(monkeypatch):
    task = {"kind": "text-classification", "samples": 20}
    recipe = Recipe.from_dict({"task": task, "calibration": {"samples": 4}, "steps": [ROUNDING]})
    needed = set()
    monkeypatch.setattr(readings, "is_corpus_cached", lambda task: task.split not in needed)
    assert readings.texts_are_cached(recipe)
    needed.add(recipe.calibration.split)
    assert recipe.calibration.split != recipe.task.split
    assert not readings.texts_are_cached(recipe)
    assert readings.texts_are_cached(recipe.model_copy(update={"calibration": None}))
