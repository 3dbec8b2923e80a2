"""Seconds of a what-if: one 1024 x 1024 layer on the CPU, with other bits and group size in each
call.

python -m tests.benchmarks.what_if
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from engine.queries import WhatIfQuery
from engine.results.store.store import Store
from engine.session import Session
from tests.answers import recipe_with, what_if
from tests.benchmarks.measurement import Measurement, milliseconds, show
from tests.benchmarks.models import Size

LAYER, ONE_BLOCK = "model.layers.0.self_attn.q_proj", Size(width=1024, inner=1024, blocks=1)
GRIDS = [
    {"bits": bits, "group_size": size}
    for bits, size in ((4, 32), (3, 64), (5, 32), (4, 128), (2, 32), (8, 64))
]
STEPS = {
    "absmax": [{"technique": "round-to-nearest", "range": "absmax"} | grid for grid in GRIDS],
    "percentile": [
        {"technique": "round-to-nearest", "range": "percentile"} | grid for grid in GRIDS
    ],
    "mse": [{"technique": "round-to-nearest", "range": "mse"} | grid for grid in GRIDS],
    "NF4": [{"technique": "bitsandbytes", "block_size": size} for size in (64, 128, 256)],
}
TARGETS = {"absmax": "300 ms"}
CALLS, WARMING = 30, 3


def measurements() -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory() as folder:
        model = str(ONE_BLOCK.save_model(Path(folder) / "model"))
        yield from timings("in this process", partial(what_if, model, LAYER))
        session = Session(Store(Path(folder) / "home"))
        yield from timings(
            "asked of the worker",
            lambda step: session.ask(WhatIfQuery(recipe_with(model, [step]), LAYER), timeout=600),
        )
        session.close()


def timings(where: str, ask: Callable[[dict], object]) -> Iterator[Measurement]:
    for name, steps in STEPS.items():
        calls = islice(cycle(steps), WARMING + CALLS)
        took = tuple(milliseconds(ask, ((step,) for step in calls)))[WARMING:]
        yield Measurement(f"What if, {name}, {where}", took, "ms", TARGETS.get(name, ""))


if __name__ == "__main__":
    show(measurements())
