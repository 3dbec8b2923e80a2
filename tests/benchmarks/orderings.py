"""Do the published orderings hold on our own trained models? Perplexity of docs-lm at 3 bits, with
half of its weights removed and with low-rank factors, one row a technique; then AWQ's salience
table, and accuracy of digits-cnn where training goes on between cuts.

python -m tests.benchmarks.orderings [TOKENS]
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.measurement import Measurement, show

GRID = {"bits": 3, "group_size": 128}
STEPS = {
    "round to nearest": {"technique": "round-to-nearest", "range": "absmax"},
    "HQQ": {"technique": "hqq"},
    "GPTQ": {"technique": "gptq", "activation_order": False, "range": "absmax"},
    "GPTQ, groups not static": {
        "technique": "gptq",
        "activation_order": False,
        "static_groups": False,
        "range": "absmax",
    },
    "GPTQ, activation order": {"technique": "gptq", "activation_order": True, "range": "absmax"},
    "AWQ": {"technique": "awq", "scheme": "symmetric"},
}
PRUNING = {  # half of the weights of each layer, or of each row where that is the method's own
    "SparseGPT": [{"technique": "sparsegpt"}],
    "Wanda": [{"technique": "wanda", "scope": "row"}],
    "Optimal Brain Damage": [{"technique": "optimal-brain-damage"}],
    "magnitude": [{"technique": "magnitude"}],
    "gradient (Taylor)": [{"technique": "taylor"}],
    "random, three draws": [{"technique": "random", "draw": draw} for draw in range(3)],
    "SparseGPT, 2:4": [{"technique": "sparsegpt", "pattern": "2:4"}],
    "Wanda, 2:4": [{"technique": "wanda", "pattern": "2:4"}],
    "magnitude, 2:4": [{"technique": "magnitude", "pattern": "2:4"}],
}

TOGETHER = {
    what: {"technique": technique, "scope": "global"}
    for what, technique in {
        "Wanda": "wanda",
        "SparseGPT": "sparsegpt",
        "magnitude": "magnitude",
    }.items()
}
NEURONS, HEADS = (
    {"technique": "structured", "what": what, "score": "l2"} for what in ("neurons", "heads")
)
STRUCTURES = {  # a quarter, or as asked
    "neurons by L2": NEURONS,
    "neurons by output, all blocks together": NEURONS | {"score": "activations", "scope": "global"},
    "heads by L2": HEADS,
    "one block": {"technique": "blocks", "count": 1},
    "two blocks": {"technique": "blocks", "count": 2},
}
CHANNELS = {
    f"{share:.0%} of the channels by {score}": {
        "technique": "structured",
        "share": share,
        "score": score,
    }
    for share in (0.1, 0.25)
    for score in ("l2", "activations")
}
CHAINS = {
    f"{technique}, {kept:.0%} kept, {steps} fine-tuning steps": {
        "technique": technique,
        "kept": kept,
        "recovery": steps,
        "rate": 3e-3,
    }
    for technique in ("tucker", "cp")
    for kept in (0.5, 0.3, 0.15)
    for steps in (0, 100)
}
LOW_RANK = {  # shares of the parameters kept, of each layer unless all share one budget
    "SVD": {"whitening": "none", "scope": "layer"},
    "FWSVD": {"whitening": "fisher", "scope": "layer"},
    "ASVD": {"whitening": "asvd", "scope": "layer"},
    "SVD-LLM": {"whitening": "svd-llm", "scope": "layer"},
    "SVD-LLM, randomized": {"whitening": "svd-llm", "scope": "layer", "solver": "randomized"},
    "SVD, all layers together": {"whitening": "none", "scope": "global"},
    "SVD-LLM, all layers together": {"whitening": "svd-llm", "scope": "global"},
}
CORRECTIONS = {  # at 2 bits, groups of 32, rank 16
    "rounding alone": {"technique": "round-to-nearest", "range": "absmax"},
    "LoftQ, one turn": {
        "technique": "low-rank-correction",
        "rank": 16,
        "whitening": "none",
        "order": "quantize-first",
    },
    "LoftQ, five turns": {
        "technique": "low-rank-correction",
        "rank": 16,
        "whitening": "none",
        "turns": 5,
        "order": "quantize-first",
    },
    "EoRA": {"technique": "low-rank-correction", "rank": 16, "order": "quantize-first"},
}
TRAINED = {  # nine tenths of each layer of digits-cnn
    "magnitude, no training": {"technique": "magnitude", "sparsity": 0.9},
    "one shot, then trained": {"technique": "gradual", "sparsity": 0.9, "schedule": "one-shot"},
    "cubic": {"technique": "gradual", "sparsity": 0.9},
    "cubic, what was cut may come back": {"technique": "gradual", "sparsity": 0.9, "regrow": True},
}


def measurements(tokens: int) -> Iterator[Measurement]:
    from engine.runtime.worker_setup import setup_worker

    setup_worker()
    for what, step in STEPS.items():
        summary = outcome_of(step | GRID, tokens).summary
        if what == "round to nearest":
            yield Measurement(
                "docs-lm, not compressed", (summary.baseline.perplexity,), "perplexity", digits=4
            )
        target = "below rounding's" if what.startswith(("GPTQ", "AWQ")) else ""
        yield Measurement(
            f"docs-lm, 3 bits, groups of 128: {what}",
            (summary.result.perplexity,),
            "perplexity",
            target,
            digits=4,
        )
    yield from pruning(tokens)
    yield from structures(tokens)
    yield from low_rank(tokens)
    yield from salience(tokens)
    yield from recovery()
    yield from training()


def pruning(tokens: int) -> Iterator[Measurement]:
    for what, steps in PRUNING.items():
        perplexities = tuple(outcome_of(step, tokens).summary.result.perplexity for step in steps)
        yield Measurement(
            f"docs-lm, half of the weights removed: {what}", perplexities, "perplexity", digits=4
        )


def structures(tokens: int) -> Iterator[Measurement]:
    """Cost of removing a share of all layers, and whole structures, on three models."""
    for what, step in TOGETHER.items():
        yield Measurement(
            f"docs-lm, half of all weights together: {what}",
            (outcome_of(step, tokens).summary.result.perplexity,),
            "perplexity",
            digits=4,
        )
    for what, step in STRUCTURES.items():
        yield Measurement(
            f"docs-lm without {what}",
            (outcome_of(step, tokens).summary.result.perplexity,),
            "perplexity",
            digits=4,
        )
        yield Measurement(
            f"docs-classifier without {what}",
            (of_examples("docs-classifier", step).summary.result.accuracy,),
            "accuracy",
            digits=4,
        )
    for what, step in CHANNELS.items():
        yield Measurement(
            f"digits-cnn without {what}",
            (of_examples("digits-cnn", step).summary.result.accuracy,),
            "accuracy",
            digits=4,
        )


def low_rank(tokens: int) -> Iterator[Measurement]:
    for kept in (0.8, 0.4):
        for what, step in LOW_RANK.items():
            perplexity = outcome_of(
                {"technique": "svd", "kept": kept} | step, tokens
            ).summary.result.perplexity
            target = "far below SVD's" if what.startswith("SVD-LLM") else ""
            yield Measurement(
                f"docs-lm, {1 - kept:.0%} of the parameters removed: {what}",
                (perplexity,),
                "perplexity",
                target,
                digits=4,
            )
    yield from uneven_channels(tokens)
    for what, step in CORRECTIONS.items():
        perplexity = outcome_of(
            {"bits": 2, "group_size": 32} | step, tokens
        ).summary.result.perplexity
        yield Measurement(
            f"docs-lm, 2 bits, groups of 32: {what}", (perplexity,), "perplexity", digits=4
        )


def uneven_channels(tokens: int) -> Iterator[Measurement]:
    """The same function in weights whose input channels differ from an eighth to eight, as they do
    in large models.
    """
    from tests.planted import save_rescaled_model, spread

    with tempfile.TemporaryDirectory() as place:
        model = save_rescaled_model(Path(place) / "model", spread())
        for what, step in LOW_RANK.items():
            perplexity = outcome_of(
                {"technique": "svd", "kept": 0.8} | step, tokens, model
            ).summary.result.perplexity
            target = "far below SVD's" if what.startswith("SVD-LLM") else ""
            yield Measurement(
                f"docs-lm in uneven channels, 20% of the parameters removed: {what}",
                (perplexity,),
                "perplexity",
                target,
                digits=4,
            )


def recovery() -> Iterator[Measurement]:
    for what, step in CHAINS.items():
        yield Measurement(
            f"digits-cnn: {what}",
            (of_examples("digits-cnn", step).summary.result.accuracy,),
            "accuracy",
            digits=4,
        )


def training() -> Iterator[Measurement]:
    for what, step in TRAINED.items():
        yield Measurement(
            f"digits-cnn, 90% of the weights removed: {what}",
            (of_examples("digits-cnn", step).summary.result.accuracy,),
            "accuracy",
            digits=4,
        )
    tickets = of_examples("digits-cnn", {"technique": "lottery-ticket"}).tables.lottery
    for (_, variant), rows in tickets[tickets["round"] > 0].groupby(["round", "variant"]):
        what = f"digits-cnn, {rows.left.mean():.1%} of the weights left from the start: {variant}"
        yield Measurement(what, tuple(rows.accuracy), "accuracy, held out", digits=4)


def salience(tokens: int) -> Iterator[Measurement]:
    """The table of the AWQ paper."""
    for row in outcome_of(
        {"technique": "awq-salience"} | GRID, tokens
    ).tables.salience.itertuples():
        kept = (
            f"{row.share:.1%} of the input channels kept, by {row.kept_by}"
            if row.kept_by
            else f"those by activation scaled by {row.scale:g}"
        )
        what = kept if row.share else "rounding with a zero point"
        target = "far below by weights and random" if row.kept_by == "activations" else ""
        yield Measurement(
            f"docs-lm, 3 bits, groups of 128: {what}",
            (row.perplexity,),
            "perplexity",
            target,
            digits=4,
        )


def outcome_of(step: dict, tokens: int, model: str = "bundled:docs-lm"):
    from engine.pipeline.run import run
    from engine.recipe import Recipe

    task = {"kind": "language-modeling", "text": "bundled:docs", "context": 256, "tokens": tokens}
    recipe = {
        "model": model,
        "task": task,
        "calibration": {"text": "bundled:docs", "samples": 64, "context": 256},
        "device": "cpu",
    }
    return run(Recipe.from_dict(recipe | {"steps": [step]}), report=lambda *_: None)


def of_examples(model: str, step: dict):
    """Measure a step on a bundled classifier with its test examples."""
    from engine.pipeline.run import run
    from engine.recipe import Recipe
    from engine.recipe.model_names import BUNDLED_MODELS

    recipe = {
        "model": f"bundled:{model}",
        "task": BUNDLED_MODELS[model].task.model_dump(),
        "device": "cpu",
        "speed": False,
    }
    return run(Recipe.from_dict(recipe | {"steps": [step]}), report=lambda *_: None)


if __name__ == "__main__":
    show(measurements(int(sys.argv[1]) if len(sys.argv) > 1 else 65_536))
