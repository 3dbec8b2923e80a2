"""On the bundled models: asked to remove nothing, pruning and low rank change nothing; what they
remove otherwise answers the same once it is saved and opened again, and its files have the bytes
that were said.

python -m tests.benchmarks.unchanged
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.measurement import Measurement, show

TASKS = {
    "docs-lm": {"kind": "language-modeling", "tokens": 8192},
    "docs-classifier": {"kind": "text-classification", "samples": 200},
    "digits-cnn": {"kind": "image-classification"},
}
SCORES = ("random", "magnitude", "taylor", "optimal-brain-damage", "sparsegpt", "wanda")
NOTHING = [{"technique": score, "sparsity": 0.0} for score in SCORES] + [
    {"technique": "structured", "share": 0.0},
    {"technique": "svd", "by": "kept", "kept": 1.0},
    {"technique": "svd", "by": "energy", "energy": 1.0},
]
SOMETHING = [{"technique": score, "sparsity": 0.5} for score in SCORES] + [
    {"technique": "structured"},
    {"technique": "svd", "kept": 0.5},
]
PICTURES, BLOCKS = [{"technique": "tucker"}, {"technique": "cp"}], [{"technique": "blocks"}]


def measurements() -> Iterator[Measurement]:
    from engine.runtime.worker_setup import setup_worker

    setup_worker()
    for model in TASKS:
        for step in [
            *NOTHING,
            *([{"technique": "blocks", "count": 0}] if model != "digits-cnn" else []),
        ]:
            summary = run_of(model, step).summary
            yield Measurement(
                f"{model}: {step_description(step)}",
                (summary.result.loss - summary.baseline.loss,),
                "nats of change",
                "0",
            )
        for step in [*SOMETHING, *(PICTURES if model == "digits-cnn" else BLOCKS)]:
            yield from reopened_measurements(model, step)


def reopened_measurements(model: str, step: dict) -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory() as place:
        kept = Path(place) / "model"
        first = run_of(model, step, save=kept).summary.result
        again = run_of(model, None, reference=str(kept)).summary.result
        size = sum(path.stat().st_size for path in kept.glob("*.safetensors"))
    yield Measurement(
        f"{model}: {step_description(step)}, opened again",
        (again.loss - first.loss,),
        "nats of change",
        "0",
    )
    yield Measurement(
        f"{model}: {step_description(step)}, its files",
        (size - first.size_bytes,),
        "bytes more than were said",
        "0",
    )


def run_of(model: str, step: dict | None, reference: str = "", save: Path | None = None):
    from engine.pipeline.run import run
    from engine.recipe import Recipe

    recipe = {
        "model": reference or f"bundled:{model}",
        "task": TASKS[model],
        "speed": False,
        "calibration": {"samples": 16},
    }
    return run(
        Recipe.from_dict(recipe | {"steps": [step] if step else []}),
        save=save,
        report=lambda *_: None,
    )


def step_description(step: dict) -> str:
    options = ", ".join(f"{name} {value}" for name, value in step.items() if name != "technique")
    return f"{step['technique']} ({options})" if options else step["technique"]


if __name__ == "__main__":
    show(measurements())
