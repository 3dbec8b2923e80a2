"""How the example on the Start page was made, from assets/recipes/first-look.yaml.

python -m engine.work.bundled.example
"""

import shutil

from engine.catalog.models import ASSETS
from engine.recipe import Recipe
from engine.results.record import RunRecord
from engine.results.store import Store
from engine.work.quiet import ready
from engine.work.run import run

NAME = "first-look"


def main() -> None:
    ready()
    recipe = Recipe.from_yaml((ASSETS / "recipes" / f"{NAME}.yaml").read_text())
    outcome = run(recipe, NAME)
    shutil.rmtree(ASSETS / "examples" / "runs" / NAME, ignore_errors=True)
    store = Store(ASSETS / "examples", indexed=False)
    record = RunRecord(id=NAME, key=recipe.key(), recipe=recipe, status="running")
    store.add(record)
    store.finish(record.model_copy(update={"summary": outcome.summary}), outcome.tables)
    print(f"perplexity {outcome.summary.baseline.perplexity:.2f} -> {outcome.summary.result.perplexity:.2f}")


if __name__ == "__main__":
    main()
