"""Forecasts of seconds and memory: they follow the work, and learn from past runs. How near they
come is the benchmark's to say.
"""

import json
from dataclasses import replace

import pytest

from engine.config.registry import TECHNIQUES
from engine.errors import PlainError
from engine.forecast import CORRECTION
from engine.forecast.throughput import layer_timing
from engine.queries import PastRun
from engine.recipe import Recipe
from engine.results.analysis.runs import latest_similar_run
from engine.step.workload import SearchWork
from engine.techniques.implementations import search_work
from engine.techniques.low_rank.tensor_decomposition.config import CP, Tucker
from engine.techniques.pruning.blocks.config import Blocks
from engine.techniques.pruning.structured.config import Structured
from engine.techniques.quantization.mixed_precision.config import MixedPrecision
from tests.answers import forecast
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.runs import finished_record
from tests.tiny import tiny

ROUNDING, GPTQ = {"technique": "round-to-nearest"}, {"technique": "gptq"}


# none to spare; no accuracy
REFUSED = (("resnet", "blocks"), ("llama", "lottery-ticket"), ("gpt2", "lottery-ticket"))
CASES = [
    (architecture, name)
    for architecture in ("llama", "bert", "gpt2", "resnet")
    for name in TECHNIQUES
]


@for_each(("architecture", "technique"), [case for case in CASES if case not in REFUSED])
def test_every_technique_has_a_forecast_on_every_kind_of_model(
    architecture, technique, step_forecast
):
    if architecture != "resnet" and "linear" not in TECHNIQUES[technique].layer_kinds:
        with pytest.raises(PlainError, match="for convolutions"):
            step_forecast({"technique": technique}, architecture)
        return
    ahead = step_forecast({"technique": technique}, architecture)
    assert 0.1 < ahead.seconds < 600 and 1e8 < ahead.peak_rss_bytes < 1e10


def test_a_teacher_of_another_kind_is_refused_before_there_is_a_forecast(step_forecast, folders):
    with pytest.raises(
        PlainError,
        match="The teacher .* is made for text-classification and .* for language-modeling",
    ):
        step_forecast(
            {"technique": "distill", "setting": "several", "teachers": str(folders["bert"])}
        )


def test_a_forecast_refuses_what_a_run_refuses(step_forecast):
    with pytest.raises(PlainError, match="Lottery tickets are compared by accuracy"):
        step_forecast({"technique": "lottery-ticket", "steps": 2})


def test_the_forecast_is_corrected_by_the_error_for_a_past_run(step_forecast, folders, tmp_path):
    plain = step_forecast(ROUNDING)
    recipe = recipe_for("llama", folders["llama"], tmp_path / "data", ROUNDING)
    past = PastRun(recipe, 3 * plain.seconds, plain.peak_rss_bytes / 2)
    after = step_forecast(ROUNDING, past=past)
    assert after.seconds == pytest.approx(
        3 * plain.seconds, rel=1e-6
    ) and after.peak_rss_bytes == pytest.approx(plain.peak_rss_bytes / 2, rel=0.01)
    assert step_forecast(ROUNDING, past=replace(past, seconds=1e9)).seconds == pytest.approx(
        CORRECTION * plain.seconds
    )


def test_forecasts_use_the_latest_run_of_the_same_technique_model_and_task():
    latest, other = finished_record(2), finished_record(1)
    asked = latest.recipe
    assert latest_similar_run([latest, other], asked) is latest
    assert (
        latest_similar_run([latest], asked.model_copy(update={"model": "bundled:digits-cnn"}))
        is None
    )
    assert (
        latest_similar_run([latest], Recipe.from_dict({"steps": [GPTQ]})) is None
        and latest_similar_run([latest], Recipe()) is None
    )


def test_trials_are_counted_as_they_are_run():
    assert search_work(TECHNIQUES["mixed-precision"](), 10) == SearchWork(0, 10 * 5 + 2, 8, 8)
    assert (
        search_work(TECHNIQUES["mixed-precision"](by="name"), 10)
        == search_work(TECHNIQUES["gptq"](), 10)
        == SearchWork()
    )
    assert search_work(TECHNIQUES["awq-salience"](), 10).evaluations == 15


@for_each(
    "technique",
    [
        name
        for name, config in TECHNIQUES.items()
        if config not in (MixedPrecision, Structured, Blocks, Tucker, CP)
    ],
)
def test_paces_are_measured_with_the_technique_itself(technique):
    """But where layers are rounded as another technique does, only cut, or no matrices."""
    pace = layer_timing(TECHNIQUES[technique](), 64)
    assert (
        min(pace.compress, pace.judge, pace.unpack) > 0
        and min(pace.once, pace.scale, pace.receive) >= 0
    )


def test_a_model_without_blocks_has_a_forecast(tmp_path):
    folder = tiny("bert", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 0}))
    asked = recipe_for("bert", folder, tmp_path / "data", {"technique": "round-to-nearest"})
    assert forecast(asked).size_bytes > 0
