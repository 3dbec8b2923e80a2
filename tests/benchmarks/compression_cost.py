"""Seconds and memory of rounding to 4 bits per million parameters: random Llamas of three sizes,
one process per run.

python -m tests.benchmarks.compression_cost

Memory is what the process grew by since just before the run: "resident" has the pages of mapped
files too, which the system can drop, "its own" has not. Compressing ends, for memory, where the
result is measured: the model as written has been opened again by then.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.measurement import Measurement, show
from tests.benchmarks.models import Size, text_in

# about 5, 50 and 200 million parameters
SIZES = (Size(256, 688, 6), Size(768, 2048, 7), Size(1024, 2816, 16))
TIMES = 3
UNITS = {
    "compressing": "ms",
    "compressing, resident memory": "MB",
    "compressing, memory of its own": "MB",
    "a run that reads 2,048 tokens": "ms",
    "that run, resident memory": "MB",
    "that run, memory of its own": "MB",
}


def measurements() -> Iterator[Measurement]:
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            recipe = recipe_in(Path(folder), size)
            runs = [in_its_own_process(recipe) for _ in range(TIMES)]
        millions = runs[0]["millions"]
        for what, unit in UNITS.items():
            yield Measurement(
                f"{millions:.0f} M parameters: {what}",
                tuple(run[what] / millions for run in runs),
                f"{unit}/M",
            )


def recipe_in(folder: Path, size: Size) -> dict[str, Any]:
    task = {
        "kind": "language-modeling",
        "text": str(text_in(folder)),
        "context": 128,
        "tokens": 2048,
    }
    step = {"technique": "round-to-nearest", "bits": 4}
    return {
        "model": str(size.save_model(folder / "model")),
        "task": task,
        "steps": [step],
        "device": "cpu",
    }


def in_its_own_process(recipe: dict[str, Any]) -> dict[str, float]:
    """Run in a process with its own results folder, so that the original is measured each time."""
    with tempfile.TemporaryDirectory() as home:
        command = [
            "env",
            f"COMPRESSION_EXPLORER_HOME={home}",
            sys.executable,
            "-m",
            "tests.benchmarks.compression_cost",
            json.dumps(recipe),
        ]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def cost_of(recipe: dict[str, Any]) -> dict[str, float]:
    """Milliseconds and megabytes of a run, by the names of UNITS, and the model's parameters in
    millions.
    """
    from engine.pipeline.run import run
    from engine.recipe import Recipe
    from engine.runtime.worker_setup import setup_worker
    from tests.benchmarks.stage_peaks import watched_stages

    setup_worker()
    with watched_stages() as stages:
        summary = run(Recipe.from_dict(recipe), report=stages.report_stage).summary
    compressing, whole = stages.peaks["compressing"], stages.overall_peak()
    figures = (
        summary.compress_seconds * 1000,
        compressing.resident,
        compressing.own,
        summary.seconds * 1000,
        whole.resident,
        whole.own,
    )
    return dict(zip(UNITS, figures, strict=True)) | {"millions": summary.baseline.parameters / 1e6}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(cost_of(json.loads(sys.argv[1]))))
    else:
        show(measurements())
