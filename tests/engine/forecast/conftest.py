"""Forecasts at fixed throughputs."""

import pytest
import torch

from engine.forecast import data_volume as readings
from engine.forecast import duration as seconds
from engine.forecast import job
from engine.forecast.throughput import ForwardTiming, LayerTiming
from tests.answers import forecast
from tests.recipes import recipe_for
from tests.tiny import tiny


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        name: tiny(name, tmp_path_factory.mktemp(name), torch.bfloat16)
        for name in ("llama", "bert", "gpt2", "resnet")
    }


@pytest.fixture(autouse=True)
def even_paces(monkeypatch):
    """Fixed throughputs, so that results do not depend on this machine."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(job, "forward_timing", lambda *_: ForwardTiming(0.001, 1e-5))
    monkeypatch.setattr(
        job, "layer_timing", lambda config, in_: LayerTiming(1e-2, 1e-5, 1e-5, 1e-6, 1e-7, 1e-7)
    )
    monkeypatch.setattr(seconds, "products_per_second", lambda dtype=None: 1e10)
    monkeypatch.setattr(readings, "measured_data_seconds", lambda task: 0.1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def step_forecast(folders, tmp_path):
    def ask(step, architecture="llama", past=None, **fields):
        recipe = recipe_for(architecture, folders[architecture], tmp_path / "data", step, **fields)
        return forecast(recipe, past)

    return ask
