"""Accuracy of forecasts: forecast and measured seconds and memory for each technique on each model.

As in the app, one process answers the questions about a model and another does its runs, one after
the other.

python -m tests.benchmarks.forecasts [--busy] [MODEL ...]

The probes' paces are those of the moment: on a machine whose other work changes meanwhile, so do
these numbers. With --busy, forecast and run take one thread and are both timed by what they use of
the processor, which other work does not lengthen.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.models import Size, text_in
from tests.experts import saved_of

TECHNIQUES = (
    "round-to-nearest",
    "gptq",
    "awq",
    "activations",
    "smoothquant",
    "llm-int8",
    "mixed-precision",
    "awq-salience",
)
TASKS = {
    "docs-lm": {"kind": "language-modeling", "context": 256, "tokens": 4096},
    "docs-classifier": {"kind": "text-classification", "samples": 200},
    "digits-cnn": {"kind": "image-classification", "samples": 200},
}
LLAMA, LLAMA_SIZE = "llama-50m", Size(768, 2048, 7)
# 32 in each block
EXPERTS, EXPERTS_SIZE = (
    "experts-20m",
    {"blocks": 4, "hidden_size": 256, "moe_intermediate_size": 192, "head_dim": 32},
)
BUSY = [argument for argument in sys.argv[1:] if argument == "--busy"]
HEADER = (
    "| model | technique | seconds: forecast | measured | ratio | MB: forecast | measured | "
    "ratio |\n|---|---|---:|---:|---:|---:|---:|---:|"
)


def recipes_for(model: str, folder: Path) -> list[dict[str, Any]]:
    named = (
        {"model": f"bundled:{model}", "task": TASKS[model]}
        if model in TASKS
        else random_model(model, folder)
    )
    calibration = {"samples": 8, "context": 128} | (
        {} if model in TASKS else {"text": named["task"]["text"]}
    )
    return [
        named | {"calibration": calibration, "steps": [{"technique": technique}], "device": "cpu"}
        for technique in TECHNIQUES
    ]


def random_model(name: str, folder: Path) -> dict[str, Any]:
    task = {
        "kind": "language-modeling",
        "text": str(text_in(folder)),
        "context": 128,
        "tokens": 1024,
    }
    saved = (
        LLAMA_SIZE.save_model(folder / name)
        if name == LLAMA
        else saved_of(32, folder / name, **EXPERTS_SIZE)
    )
    return {"model": str(saved), "task": task}


@contextmanager
def another_process(doing: str) -> Iterator[Callable[[dict[str, Any]], dict[str, float]]]:
    """Answers one recipe after the other: what is forecast knows what the runs before it have left
    on the disk, as in the app.
    """
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.forecasts", *BUSY, doing]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def answer(recipe: dict[str, Any]) -> dict[str, float]:
            print(json.dumps(recipe), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield answer
        process.stdin.close()


def forecasts(recipes: Iterable[dict[str, Any]]) -> Iterator[dict[str, float]]:
    from tests.answers import forecast

    for recipe in recipes:
        ahead = forecast(recipe)
        yield {"seconds": ahead.seconds, "bytes": ahead.peak_rss_bytes}


def runs(recipes: Iterable[dict[str, Any]]) -> Iterator[dict[str, float]]:
    from engine.pipeline.run import run
    from engine.recipe import Recipe
    from engine.runtime.worker_setup import setup_worker

    setup_worker()
    for recipe in recipes:
        summary = run(Recipe.from_dict(recipe)).summary
        yield {"seconds": summary.seconds, "bytes": summary.peak_rss_bytes}


def show(models: list[str]) -> None:
    print(HEADER, flush=True)
    near: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for model in models or [*TASKS, LLAMA, EXPERTS]:
            with another_process("forecasts") as ahead, another_process("runs") as run:
                for technique, recipe in zip(
                    TECHNIQUES, recipes_for(model, Path(folder)), strict=True
                ):
                    said, took = ahead(recipe), run(recipe)
                    ratios = {unit: said[unit] / took[unit] for unit in took}
                    near.update(unit for unit, ratio in ratios.items() if 0.5 <= ratio <= 2)
                    near["all"] += 1
                    print(row(model, technique, said, took, ratios), flush=True)
    print(
        f"\nWithin a factor of two: {near['seconds']} of {near['all']} in seconds, "
        f"{near['bytes']} of {near['all']} in memory."
    )


def row(
    model: str,
    technique: str,
    said: dict[str, float],
    took: dict[str, float],
    ratios: dict[str, float],
) -> str:
    seconds = f"{said['seconds']:.1f} | {took['seconds']:.1f} | {ratios['seconds']:.2f}"
    megabytes = f"{said['bytes'] / 1e6:.0f} | {took['bytes'] / 1e6:.0f} | {ratios['bytes']:.2f}"
    return f"| {model} | {technique} | {seconds} | {megabytes} |"


if __name__ == "__main__":
    asked = [argument for argument in sys.argv[1:] if argument not in BUSY]
    if asked[:1] in (["forecasts"], ["runs"]):
        if BUSY:
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
            time.perf_counter = time.process_time
        for each in {"forecasts": forecasts, "runs": runs}[asked[0]](map(json.loads, sys.stdin)):
            print(json.dumps(each), flush=True)
    else:
        show(asked)
