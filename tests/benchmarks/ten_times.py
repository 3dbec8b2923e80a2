"""The ten-times example over seeds: size and quality after each step, and the total time.

python -m tests.benchmarks.ten_times [SEEDS]
"""

import sys
from collections.abc import Iterator

import pandas as pd

from tests.benchmarks.measurement import Measurement, show

STEPS = ("teacher", "student", "4-bit student")
MEASURES = ("accuracy", "precision", "recall", "f1")


def measurements(seeds: int) -> Iterator[Measurement]:
    runs = [ten_times_run(seed) for seed in range(seeds)]
    yield Measurement(
        "the whole run",
        tuple(seconds for seconds, _ in runs),
        "s",
        "under 600 on 2 idle cores",
    )
    known = pd.concat([table.assign(seed=seed) for seed, (_, table) in enumerate(runs)])
    for step, step_name in enumerate(STEPS):
        yield from sizes(step_name, known[(known.step == step) & (known.split == "test")])
    for (split, step), rows in known.groupby(["split", "step"], sort=False):
        yield from (
            Measurement(f"{STEPS[step]}, {split}: {name}", tuple(rows[name]), "", digits=4)
            for name in MEASURES
        )
    yield from behind(known[known.split == "test"])


def ten_times_run(seed: int) -> tuple[float, pd.DataFrame]:
    """Seconds, and how the model stood."""
    from engine.pipeline.run import run
    from engine.recipe import Recipe
    from engine.recipe.model_names import ASSETS
    from engine.results.analysis.per_step_scores import step_scores
    from engine.runtime.worker_setup import setup_worker

    setup_worker()
    recipe = Recipe.from_yaml((ASSETS / "recipes" / "ten-times.yaml").read_text()).model_copy(
        update={"seed": seed}
    )
    outcome = run(recipe)
    return outcome.summary.seconds, step_scores(outcome.tables.stages)


def sizes(step_name: str, rows: pd.DataFrame) -> Iterator[Measurement]:
    yield Measurement(f"{step_name}: parameters", tuple(rows.parameters / 1e6), "million")
    yield Measurement(f"{step_name}: files", tuple(rows.size_bytes / 1e6), "MB")
    if step_name == STEPS[-1]:
        yield Measurement(
            f"{step_name}: smaller than the float32 teacher",
            tuple(rows["compression"]),
            "times",
            "at least 7",
        )


def behind(known: pd.DataFrame) -> Iterator[Measurement]:
    """Points of test accuracy that a student lacks."""
    teacher = known[known.step == 0].set_index("seed").accuracy
    for step, step_name in list(enumerate(STEPS))[1:]:
        lacking = 100 * (teacher - known[known.step == step].set_index("seed").accuracy)
        yield Measurement(
            f"{step_name}: behind the teacher, test accuracy", tuple(lacking), "points", "at most 2"
        )


if __name__ == "__main__":
    show(measurements(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
