"""Fixtures of the engine's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.forecast import Cost
from engine.interactive import answers, run_forecast
from engine.interactive.model_cache import CACHE
from engine.measurement import generations as samples
from engine.pipeline.run import run
from engine.training import Quality
from engine.training import trainer as study
from tests.explained_steps import LAYERS, STEPS
from tests.recipes import recipe_for
from tests.tiny import ARCHITECTURES, tiny


@pytest.fixture(scope="module", autouse=True)
def few_words():
    """Models of random weights have little to say, and saying it takes most of a tiny run's
    time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "NEW_TOKENS", 4)
        yield


@pytest.fixture(autouse=True)
def few_threads(monkeypatch):
    """A forecast takes all of the machine's; tests share it."""
    monkeypatch.setattr(answers, "setup_worker", lambda: None)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def bytes_alone(monkeypatch):
    """Forecasts do not try out how fast this machine is: for tests that only look at sizes."""
    monkeypatch.setattr(run_forecast, "cost_of", lambda *_: Cost(seconds=1.0, peak_rss_bytes=1.0))


@pytest.fixture
def kept_last(monkeypatch):
    """Every look finds the model better than before, so that the last state is the one that is
    stored.
    """
    ever_better = (Quality("accuracy", look / 10_000) for look in range(1, 10_000))
    monkeypatch.setattr(study, "held_out_quality", lambda *_: next(ever_better))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A model of every architecture."""
    return {name: tiny(name, tmp_path_factory.mktemp(name)) for name in ARCHITECTURES}


@pytest.fixture(scope="module")
def bfloat16_folders(tmp_path_factory) -> dict[str, Path]:
    """A model of every architecture in bfloat16."""
    return {
        name: tiny(name, tmp_path_factory.mktemp(name), torch.bfloat16) for name in ARCHITECTURES
    }


@pytest.fixture(scope="module")
def cached_run(folders, tmp_path_factory) -> Callable[[str, dict[str, Any]], tuple]:
    """Runs by architecture and step, each made once: the outcome, the folder it was saved to, the
    recipe.
    """
    kept, data = {}, {name: tmp_path_factory.mktemp("data") for name in ARCHITECTURES}

    def of(architecture: str, step: dict[str, Any]) -> tuple:
        key = architecture, str(step)
        if key not in kept:
            save = tmp_path_factory.mktemp("saved") / "model"
            recipe = recipe_for(architecture, folders[architecture], data[architecture], step)
            kept[key] = run(recipe, save=save), save, recipe
        return kept[key]

    return of


@pytest.fixture(scope="module")
def questions(folders, tmp_path_factory) -> Iterator[Callable[[str, str], dict[str, Any]]]:
    """Questions about a layer of each architecture, with data of its own. Each layer is compressed
    once for all tests of a module.
    """
    data = tmp_path_factory.mktemp("data")

    def question(architecture, step):
        recipe = recipe_for(architecture, folders[architecture], data / architecture, STEPS[step])
        measured = recipe.model_dump(mode="json", include={"task", "calibration"})
        return {
            "model": str(folders[architecture]),
            "layer": LAYERS[architecture],
            "step": STEPS[step],
            "measured": measured,
        }

    with pytest.MonkeyPatch.context() as patch:
        for recent in (CACHE.previews, CACHE.models, CACHE.first_rows_kept, CACHE.statistics):
            patch.setattr(recent, "capacity", 10**12)
        yield question
    CACHE.clear()
