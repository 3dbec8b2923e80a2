"""Generation of the finished example runs from their recipes in assets/recipes: the one on the
Start page and the ten-times example.

python -m engine.bundled.example first-look ten-times
"""

import shutil
import sys

from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.recipe.model_names import ASSETS
from engine.results.schema.record import RunRecord
from engine.results.store.store import Store
from engine.runtime.worker_setup import setup_worker


def make_example(name: str) -> None:
    recipe = Recipe.from_yaml((ASSETS / "recipes" / f"{name}.yaml").read_text())
    outcome = run(recipe, name)
    shutil.rmtree(ASSETS / "examples" / "runs" / name, ignore_errors=True)
    store = Store(ASSETS / "examples", indexed=False)
    record = RunRecord(id=name, key=recipe.key(), recipe=recipe, summary=outcome.summary)
    if error := store.save(record, outcome.tables):
        raise error
    print(
        outcome.tables.stages.to_string(index=False)
        if len(recipe.steps) > 1
        else outcome.summary.result
    )


if __name__ == "__main__":
    setup_worker()
    for name in sys.argv[1:]:
        make_example(name)
