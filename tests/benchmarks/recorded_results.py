"""Do recipes still give the keys, sizes and quality that were recorded before a change?

    python -m tests.benchmarks.recorded_results [--record] [TECHNIQUE or RECIPE ...]

Runs one recipe of each technique with its default options, on the first bundled model that it
treats, and the recipes in ``assets/recipes``, and compares with ``recorded_results.json``: equal
keys, sizes to the byte, quality to the last printed digit. Keys of the stored example runs, too.
Results of training depend on the processor; record and compare on the same machine.
"""

import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.config.registry import TECHNIQUES
from engine.errors import PlainError
from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.results.schema.record import RunRecord
from engine.runtime.worker_setup import setup_worker

FILE = Path(__file__).with_name("recorded_results.json")
ASSETS = Path(__file__).resolve().parents[2] / "assets"
NEEDS_A_NETWORK = "ten-times-hub"
SHORT = {"steps": 20, "epochs": 0}  # of techniques that train
SHORT_LOTTERY = {"rounds": 1, "seeds": 1}
TASKS = {
    "docs-lm": {"kind": "language-modeling", "context": 128, "tokens": 4096},
    "docs-classifier": {"kind": "text-classification", "samples": 100},
    "digits-cnn": {"kind": "image-classification", "samples": 100},
}
DIGITS = {"perplexity": 3, "accuracy": 4, "agreement": 4}


def recipes() -> Iterator[tuple[str, Recipe]]:
    for name, config in TECHNIQUES.items():
        short = {key: value for key, value in SHORT.items() if key in config.model_fields}
        short |= SHORT_LOTTERY if name == "lottery-ticket" else {}
        fields = {"steps": [{"technique": name, **short}], "speed": False}
        for model, task in TASKS.items():
            calibration = {"samples": 8, "context": 128}
            on_model = {"model": f"bundled:{model}", "task": task, "calibration": calibration}
            yield f"{name} on {model}", Recipe.from_dict({**fields, **on_model})
    for path in sorted((ASSETS / "recipes").glob("*.yaml")):
        if path.stem != NEEDS_A_NETWORK:
            yield path.stem, Recipe.from_yaml(path.read_text())


def key_of(recipe: Recipe) -> str:
    """Key of the recipe on a Hub model: those of local models contain their files' times."""
    return recipe.model_copy(update={"model": "someone/model"}).key()


def results(chosen: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((ASSETS / "examples" / "runs").glob("*/record.json")):
        record = RunRecord.model_validate_json(path.read_bytes())
        yield f"stored {path.parent.name}", {"key": key_of(record.recipe)}
    done = set()
    for name, recipe in recipes():
        technique = name.partition(" on ")[0]
        if technique in done or (chosen and technique not in chosen):
            continue
        try:
            summary = run(recipe, report=lambda *_: None).summary
        except PlainError:
            continue  # not for this model
        done.add(technique)
        scores = {"original": summary.baseline, "compressed": summary.result}
        yield (
            name,
            {"key": key_of(recipe), "size_bytes": summary.result.size_bytes}
            | {
                f"{measure}, {which}": round(value, digits)
                for which, each in scores.items()
                for measure, digits in DIGITS.items()
                if (value := getattr(each, measure)) is not None
            },
        )


def main() -> int:
    setup_worker()
    recording, chosen = "--record" in sys.argv, [a for a in sys.argv[1:] if a != "--record"]
    recorded = json.loads(FILE.read_text()) if FILE.exists() else {"results": {}}
    found = {}
    for name, result in results(chosen):
        found[name] = result
        print(name, result, flush=True)
    if recording:
        recorded["processor"] = platform.processor() or platform.machine()
        recorded["results"] |= found
        FILE.write_text(json.dumps(recorded, indent=1) + "\n")
        return 0
    before = {name: recorded["results"].get(name) for name in found}
    differ = [name for name in before if before[name] != found[name]]
    for name in sorted(differ):
        print(f"{name}: {before[name]} before, {found[name]} now")
    print(f"{len(before) - len(differ)} of {len(before)} as recorded")
    return bool(differ)


if __name__ == "__main__":
    sys.exit(main())
