"""Processor time to open a model of 3,106 layers, most of them of experts, and to answer questions
about it.

python -m tests.benchmarks.many_layers
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.interactive.model_cache import CACHE
from tests.answers import forecast
from tests.benchmarks.measurement import Measurement, show
from tests.experts import saved_of
from tests.recipes import recipe_for

STEPS = {
    "rounding": {"technique": "round-to-nearest"},
    "mixed precision": {"technique": "mixed-precision", "budget": 5.0},
    "neurons": {"technique": "structured", "what": "neurons", "score": "l2"},
}


def measurements() -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory() as folder:
        model = saved_of(128, Path(folder) / "model", blocks=8)
        yield processor_time("open", lambda: CACHE.model(str(model)))
        for name, step in STEPS.items():
            recipe = recipe_for("mixtral", model, Path(folder) / "data", step).model_dump(
                mode="json"
            )
            for time_ in ("first", "second"):
                yield processor_time(
                    f"{time_} forecast of {name}", lambda recipe=recipe: forecast(recipe)
                )


def processor_time(what: str, doing: Callable[[], object]) -> Measurement:
    began = time.process_time()
    doing()
    return Measurement(what, (time.process_time() - began,))


if __name__ == "__main__":
    show(measurements())
