"""Gains of training on the bundled models, over seeds: students compared with students trained on
labels alone, QAT with rounding at the same bits, and LoRA with a compressed model. Before that,
training steps per second compared with a plain loop on digits-cnn, alternating, with one thread.

python -m tests.benchmarks.training [SEEDS] [TOKENS]
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.benchmarks.measurement import Measurement, show
from tests.recipes import few_digits

ROUNDING = {"technique": "round-to-nearest", "group_size": 32, "range": "absmax"}
QAT = {"technique": "qat", "group_size": 32, "range": "absmax"}
QATS = {
    "QAT": {"distill_weight": 0.0},
    "QAT, steps learn (LSQ)": {"learn_scales": True, "distill_weight": 0.0},
    "QAT, steps learn (LSQ), taught by the original": {"learn_scales": True, "distill_weight": 1.0},
}
COURSES = {
    "docs-lm": {"steps": 60, "batch": 8, "rate": 1e-3},
    "digits-cnn": {"steps": 300, "batch": 32, "rate": 1e-3},
}
ALONE, TAUGHT = {"distill_weight": 0}, {"distill_weight": 0.9, "temperature": 4.0}
DIGITS = {
    "technique": "distill",
    "blocks": 0.5,
    "start": "random",
    "steps": 200,
    "batch": 32,
    "rate": 3e-3,
}
PASSAGES = {
    "technique": "distill",
    "blocks": 0.5,
    "heads": 0.5,
    "steps": 100,
    "batch": 16,
    "rate": 5e-4,
}
WRITER = {"technique": "distill", "blocks": 0.5, "steps": 100, "batch": 8, "rate": 1e-3}
LORA = {"technique": "lora", "rank": 8, "steps": 60, "batch": 8, "rate": 3e-3}
BASES = {
    "2 bits, groups of 32": {**ROUNDING, "bits": 2},
    "half of the weights removed by magnitude": {"technique": "magnitude"},
    "half of the weights removed by Wanda": {"technique": "wanda", "scope": "row"},
}


STEPS, TURNS = 200, 8  # of the two loops that are compared


def measurements(seeds: int, tokens: int) -> Iterator[Measurement]:
    from engine.runtime.worker_setup import setup_worker

    setup_worker()
    yield from paces()
    yield from with_and_without_teacher(seeds, tokens)
    for model, course in COURSES.items():
        for bits in (2, 3):
            yield from aware(model, bits, course, seeds, tokens)
    yield from adapter_measurements(seeds, tokens)


def paces() -> Iterator[Measurement]:
    """Ours clips gradients, records its curve, and looks at held-out examples before and after; the
    other does not.
    """
    from engine.runtime.threads import one_thread

    loops: dict[str, Callable[[], None]] = {
        "ours": distill_training,
        "a bare loop": bare,
        "a bare loop, fused": partial(bare, fused=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    with one_thread():
        for _ in range(TURNS):
            for name, loop in loops.items():
                go = loop()
                began = time.perf_counter()
                go()
                seconds[name].append(time.perf_counter() - began)
    for name, times in seconds.items():
        yield Measurement(
            f"digits-cnn, batches of 32: {name}",
            tuple(STEPS / each for each in times),
            "steps a second",
            digits=3,
        )
    for name in ("a bare loop", "a bare loop, fused"):
        ratios = tuple(
            theirs / ours for ours, theirs in zip(seconds["ours"], seconds[name], strict=True)
        )
        yield Measurement(f"ours beside {name}", ratios, "times as many", "at least 0.9", digits=3)


def distill_training() -> Callable[[], None]:
    from engine.step.run_context import RunContext
    from engine.training import Trainer, TrainingConfig, WeightedLoss
    from engine.training.losses import label_loss

    recipe, folder, model, lessons = digits()
    loss = WeightedLoss({"labels": (1.0, lambda logits, batch: label_loss(logits, batch.targets))})
    return Trainer(
        RunContext(recipe, folder),
        model,
        lessons,
        TrainingConfig(STEPS, 1e-3, 32),
        loss,
        evaluate_every=STEPS,
    ).run


def bare(fused: bool = False) -> Callable[[], None]:
    """Plain training loop; ``fused``: with the same optimizer as ours."""
    import torch
    from torch.nn.functional import cross_entropy

    _, _, model, lessons = digits()
    optimizer, draw, examples = (
        torch.optim.AdamW(model.parameters(), 1e-3, fused=fused),
        torch.Generator().manual_seed(0),
        lessons.train,
    )

    def go() -> None:
        model.train()
        for _ in range(STEPS):
            rows = torch.randint(len(examples), (32,), generator=draw)
            optimizer.zero_grad()
            cross_entropy(
                model(examples.inputs["pixel_values"][rows]).logits, examples.targets[rows]
            ).backward()
            optimizer.step()

    return go


def digits():
    """The recipe, the folder, a model of its own that learns, and what it learns from."""
    from engine.models.loading import load_pretrained, resolve_model
    from engine.recipe import Recipe
    from engine.recipe.model_names import BUNDLED_MODELS
    from engine.training import load_recipe_training_data

    recipe = Recipe.from_dict(
        {
            "model": "bundled:digits-cnn",
            "task": BUNDLED_MODELS["digits-cnn"].task.model_dump(),
            "steps": [{"technique": "fine-tune"}],
        }
    )
    folder = resolve_model(recipe.model)
    return (
        recipe,
        folder,
        load_pretrained(folder).requires_grad_(True),
        load_recipe_training_data(recipe, folder),
    )


def with_and_without_teacher(seeds: int, tokens: int) -> Iterator[Measurement]:
    """Train a student with the same labeled examples and steps without its teacher, with it, and
    with further examples that only the teacher labels.
    """
    yield from with_few_labels(
        "digits-cnn", DIGITS, few_digits, "bundled:digits", 50, seeds, tokens
    )
    yield from with_few_labels(
        "docs-classifier", PASSAGES, few_passages, "bundled:docs-libraries", 500, seeds, tokens
    )
    for what, options in {"by labels alone": ALONE, "by its teacher too": TAUGHT}.items():
        target = "" if options is ALONE else "lower"
        yield quality(
            "docs-lm",
            tokens,
            (WRITER | options,),
            f"docs-lm, every other block: taught {what}",
            range(seeds),
            target,
        )


def with_few_labels(
    model: str, student: dict, few: Callable, more: str, count: int, seeds: int, tokens: int
) -> Iterator[Measurement]:
    """Each seed draws its own labeled examples."""
    with tempfile.TemporaryDirectory() as place:
        data = [few(count, seed, Path(place)) for seed in range(seeds)]
        for what, (options, extra) in {
            "labels alone": (ALONE, {}),
            "its teacher too": (TAUGHT, {}),
            "its teacher too, who has examples without labels": (TAUGHT, {"unlabelled": more}),
        }.items():
            scores = [
                outcome_of(
                    model, (student | options,), seed, tokens, data[seed] | extra
                ).summary.result.accuracy
                for seed in range(seeds)
            ]
            target = "" if options is ALONE else "better than labels alone"
            yield Measurement(
                f"{model}, a student with {count} labels: taught by {what}",
                tuple(scores),
                "accuracy",
                target,
                digits=4,
            )


def few_passages(count: int, seed: int, place: Path) -> dict[str, str]:
    """So many labeled passages, drawn by the seed; judged by the usual ones."""
    import json

    import numpy as np

    from engine.evaluation.data.examples import load_examples
    from engine.recipe.tasks import TextClassification

    known = load_examples(TextClassification(split="train", samples=8192))
    rows = np.random.default_rng(seed).permutation(len(known.labels))[:count]
    path = place / f"passages-{seed}.json"
    path.write_text(
        json.dumps(
            [{"text": known.inputs[row], "label": known.names[known.labels[row]]} for row in rows]
        )
    )
    return {"train": str(path), "validation": "bundled:docs-libraries"}


def aware(model: str, bits: int, course: dict, seeds: int, tokens: int) -> Iterator[Measurement]:
    """The original, rounded, and trained at the same bits in the same groups."""
    measured = partial(quality, model, tokens)
    if bits == 2:
        yield measured((), f"{model}, not compressed", range(1))
    yield measured(
        (ROUNDING | {"bits": bits},), f"{model}, {bits} bits, groups of 32: rounding", range(1)
    )
    for what, options in QATS.items():
        target = "better than rounding's"
        yield measured(
            (QAT | {"bits": bits} | course | options,),
            f"{model}, {bits} bits, groups of 32: {what}",
            range(seeds),
            target,
        )
    if bits == 2:
        bitnet = {"technique": "bitnet", "activation_bits": 0, "distill_weight": 0.0} | course
        yield measured(
            ({"technique": "ternary"},), f"{model}, three values, a scale a row: rounding", range(1)
        )
        yield measured(
            (bitnet,),
            f"{model}, three values, a scale a row: BitNet",
            range(seeds),
            "better than rounding's",
        )


def adapter_measurements(seeds: int, tokens: int) -> Iterator[Measurement]:
    measured = partial(quality, "docs-lm", tokens)
    for what, base in BASES.items():
        yield measured((base,), f"docs-lm, {what}", range(1))
        yield measured((base, LORA), f"docs-lm, {what}: LoRA beside it", range(seeds), "lower")
        if base["technique"] != "round-to-nearest":
            yield measured(
                (base, LORA | {"merge": True}),
                f"docs-lm, {what}: LoRA merged, zeros kept",
                range(seeds),
                "lower",
            )
    yield measured((LORA | {"technique": "qlora"},), "docs-lm: QLoRA", range(seeds))


def quality(
    model: str, tokens: int, steps: tuple[dict, ...], what: str, seeds: range, target: str = ""
) -> Measurement:
    """Perplexity of the language model, accuracy of the classifier, one value for each seed."""
    results = [outcome_of(model, steps, seed, tokens).summary.result for seed in seeds]
    if model == "docs-lm":
        return Measurement(
            what, tuple(each.perplexity for each in results), "perplexity", target, digits=4
        )
    return Measurement(what, tuple(each.accuracy for each in results), "accuracy", target, digits=4)


def outcome_of(
    model: str, steps: tuple[dict, ...], seed: int, tokens: int, training: dict | None = None
):
    from engine.pipeline.run import run
    from engine.recipe import Recipe
    from engine.recipe.model_names import BUNDLED_MODELS

    language = {
        "kind": "language-modeling",
        "text": "bundled:docs",
        "context": 256,
        "tokens": tokens,
    }
    task = language if model == "docs-lm" else BUNDLED_MODELS[model].task.model_dump()
    data = (
        {"calibration": {"text": "bundled:docs", "samples": 64, "context": 256}}
        if model == "docs-lm"
        else {}
    )
    recipe = {
        "model": f"bundled:{model}",
        "task": task,
        "steps": steps,
        "seed": seed,
        "device": "cpu",
        "speed": False,
    }
    recipe |= {"training": training} if training else {}
    return run(Recipe.from_dict(recipe | data), report=lambda *_: None)


if __name__ == "__main__":
    asked = [int(each) for each in sys.argv[1:]]
    show(measurements(*(asked + [3, 65_536][len(asked) :])))
