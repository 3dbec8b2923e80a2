from engine.forecast import data_volume as readings
from engine.forecast import duration as seconds
from engine.forecast.duration import EXTRACTION
from tests.answers import forecast

ROUNDING, GPTQ = {"technique": "round-to-nearest"}, {"technique": "gptq"}


def test_a_corpus_that_is_not_yet_extracted_takes_its_time(folders, monkeypatch):
    recipe = {
        "model": str(folders["llama"]),
        "task": {"kind": "language-modeling", "context": 64, "tokens": 1000},
        "steps": [ROUNDING],
    }
    held_out = forecast(recipe).seconds
    for module in (readings, seconds):
        monkeypatch.setattr(module, "is_corpus_cached", lambda task: False)
    assert held_out < forecast(recipe).seconds - EXTRACTION / 2
