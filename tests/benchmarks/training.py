"""What training wins back, on our own trained models, over seeds: QAT beside rounding at the same bits, and LoRA beside a compressed model.

python -m tests.benchmarks.training [SEEDS] [TOKENS]
"""

import sys
from collections.abc import Iterator
from functools import partial

from tests.benchmarks.measurement import Measurement, show

ROUNDING = {"technique": "round-to-nearest", "group_size": 32}
QAT = {"technique": "qat", "group_size": 32}
QATS = {
    "QAT": {},
    "QAT, steps learn (LSQ)": {"learn_scales": True},
    "QAT, steps learn (LSQ), taught by the original": {"learn_scales": True, "distill_weight": 1.0},
}
COURSES = {"docs-lm": {"steps": 60, "batch": 8, "rate": 1e-3}, "digits-cnn": {"steps": 300, "batch": 32, "rate": 1e-3}}
LORA = {"technique": "lora", "rank": 8, "steps": 60, "batch": 8, "rate": 3e-3}
BASES = {
    "2 bits, groups of 32": {**ROUNDING, "bits": 2},
    "half of the weights removed by magnitude": {"technique": "magnitude"},
    "half of the weights removed by Wanda": {"technique": "wanda"},
}


def measurements(seeds: int, tokens: int) -> Iterator[Measurement]:
    from engine.work.quiet import ready

    ready()
    for model, course in COURSES.items():
        for bits in (2, 3):
            yield from aware(model, bits, course, seeds, tokens)
    yield from recovered(seeds, tokens)


def aware(model: str, bits: int, course: dict, seeds: int, tokens: int) -> Iterator[Measurement]:
    """The original, rounded, and trained at the same bits in the same groups."""
    measured = partial(quality, model, tokens)
    if bits == 2:
        yield measured((), f"{model}, not compressed", range(1))
    yield measured((ROUNDING | {"bits": bits},), f"{model}, {bits} bits, groups of 32: rounding", range(1))
    for what, options in QATS.items():
        target = "better than rounding's"
        yield measured((QAT | {"bits": bits} | course | options,), f"{model}, {bits} bits, groups of 32: {what}", range(seeds), target)
    if bits == 2:
        bitnet = {"technique": "bitnet", "activation_bits": 0} | course
        yield measured(({"technique": "ternary"},), f"{model}, three values, a scale a row: rounding", range(1))
        yield measured((bitnet,), f"{model}, three values, a scale a row: BitNet", range(seeds), "better than rounding's")


def recovered(seeds: int, tokens: int) -> Iterator[Measurement]:
    measured = partial(quality, "docs-lm", tokens)
    for what, base in BASES.items():
        yield measured((base,), f"docs-lm, {what}", range(1))
        yield measured((base, LORA), f"docs-lm, {what}: LoRA beside it", range(seeds), "lower")
        if base["technique"] != "round-to-nearest":
            yield measured((base, LORA | {"merge": True}), f"docs-lm, {what}: LoRA merged, zeros kept", range(seeds), "lower")
    yield measured((LORA | {"technique": "qlora"},), "docs-lm: QLoRA", range(seeds))


def quality(model: str, tokens: int, steps: tuple[dict, ...], what: str, seeds: range, target: str = "") -> Measurement:
    """Perplexity of the language model, accuracy of the classifier, one value for each seed."""
    results = [outcome_of(model, steps, seed, tokens).summary.result for seed in seeds]
    if model == "docs-lm":
        return Measurement(what, tuple(each.perplexity for each in results), "perplexity", target, digits=4)
    return Measurement(what, tuple(each.accuracy for each in results), "accuracy", target, digits=4)


def outcome_of(model: str, steps: tuple[dict, ...], seed: int, tokens: int):
    from engine.catalog.models import BUNDLED
    from engine.recipe import Recipe
    from engine.work.run import run

    language = {"kind": "language-modeling", "text": "bundled:docs", "context": 256, "tokens": tokens}
    task = language if model == "docs-lm" else BUNDLED[model].task.model_dump()
    data = {"calibration": {"text": "bundled:docs", "samples": 64, "context": 256}} if model == "docs-lm" else {}
    recipe = {"model": f"bundled:{model}", "task": task, "steps": steps, "seed": seed, "device": "cpu", "speed": False}
    return run(Recipe.of(recipe | data), report=lambda *_: None)


if __name__ == "__main__":
    asked = [int(each) for each in sys.argv[1:]]
    show(measurements(*(asked + [3, 65_536][len(asked) :])))
