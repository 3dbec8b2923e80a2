"""Forecasts of seconds and memory at fixed throughputs, for every technique with the options that
change its workload.

``python -m tests.forecasts > tests/golden/forecasts.json`` records them.
"""

import json
from dataclasses import astuple
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from engine import forecast as costs
from engine.config.registry import BUILT_IN_TECHNIQUES, TECHNIQUES, technique_name
from engine.errors import PlainError
from engine.forecast import data_volume, duration, job, memory
from engine.forecast.job import Job
from engine.forecast.throughput import ForwardTiming, LayerTiming
from engine.interactive import run_forecast
from engine.techniques.implementations import layer_operations, search_work, training_work
from tests.answers import forecast
from tests.recipes import recipe_for
from tests.tiny import tiny

GOLDEN = Path(__file__).parent / "golden" / "forecasts.json"
ARCHITECTURES = ("llama", "resnet")
FURTHER: tuple[dict[str, Any], ...] = (
    {"technique": "mixed-precision", "by": "name"},
    {"technique": "svd", "whitening": "none"},
    {"technique": "tucker", "recovery": 40},
    {"technique": "cp", "recovery": 40},
    {"technique": "gradual", "regrow": True},
    {"technique": "gradual", "regularizer": "l0"},
    {"technique": "gradual", "floor": 0.5},
    {"technique": "gradual", "distill_weight": 0.5},
    {"technique": "lottery-ticket", "seeds": 3, "rewind_step": 10},
    {"technique": "qat", "distill_weight": 0.5, "steps": 70},
    {"technique": "qat", "activation_bits": 8, "look_every": 5},
    {"technique": "lora", "distill_weight": 0.5},
    {"technique": "mixed-precision-training", "look_every": 10},
    {"technique": "distill", "student": "same", "steps": 30},
    {"technique": "distill", "setting": "self", "student": "same", "generations": 3},
    {"technique": "distill", "setting": "self", "student": "same", "views": "two-views"},
    {"technique": "distill", "setting": "online"},
    {"technique": "distill", "setting": "black-box"},
    {"technique": "distill", "features": "mse"},
    {"technique": "distill", "attention_weight": 1.0},
    {"technique": "distill", "width": 0.5, "blocks": 1.0},
)


def steps() -> list[dict[str, Any]]:
    """The techniques of this package with their default options, then those with FURTHER ones."""
    return [*({"technique": technique_name(cls)} for cls in BUILT_IN_TECHNIQUES), *FURTHER]


def opened_at_once(*fields: Any) -> Job:
    *others, _ = fields  # seconds of opening the model
    return Job(*others, 0.1)


def fix_throughputs(patch: pytest.MonkeyPatch) -> None:
    """Make forecasts independent of this machine and of earlier runs."""
    patch.setattr(job, "forward_timing", lambda *_: ForwardTiming(0.001, 1e-5))
    pace = LayerTiming(1e-2, 1e-5, 1e-5, 1e-6, 1e-7, 1e-7, 1e-3)
    patch.setattr(job, "layer_timing", lambda config, in_: pace)
    patch.setattr(duration, "products_per_second", lambda dtype=None: 1e10)
    patch.setattr(data_volume, "measured_data_seconds", lambda task: 0.1)
    patch.setattr(data_volume, "is_corpus_cached", lambda task: True)
    patch.setattr(costs, "is_baseline_cached", lambda *_: False)
    patch.setattr(memory, "BASE", 0)
    patch.setattr(run_forecast, "Job", opened_at_once)
    patch.setattr(torch, "get_num_threads", lambda: 1)


def forecasts(folder: Path) -> dict[str, list[float]]:
    """[seconds, bytes] by architecture and step; empty where a step is refused."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        fix_throughputs(patch)
        for architecture in ARCHITECTURES:
            model = tiny(architecture, folder / architecture, torch.bfloat16)
            for step in steps():
                recipe = recipe_for(architecture, model, folder / "data", step)
                try:
                    ahead = forecast(recipe.model_dump(mode="json"))
                    numbers = [ahead.seconds, ahead.peak_rss_bytes]
                except PlainError:
                    numbers = []
                found[f"{architecture} {json.dumps(step)}"] = numbers
    return found


def workloads() -> dict[str, list[float]]:
    """Numbers of each step's search in 10 layers, of its training, and of one layer."""
    found = {}
    for step in steps():
        config = TECHNIQUES[step["technique"]](**step)
        found[json.dumps(step)] = [
            *astuple(search_work(config, 10)),
            *astuple(training_work(config)),
            layer_operations(config, (48, 172)),
        ]
    return found


if __name__ == "__main__":
    with TemporaryDirectory() as place:
        found = forecasts(Path(place)) | workloads()
    lines = (f"{json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in found.items())
    print("{", ",\n".join(lines), "}", sep="\n")
