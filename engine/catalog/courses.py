"""Options of techniques that train: how long, how far in one step, on how much at once."""

from typing import Any

from engine.catalog.technique import option

RATES = (0.0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def rate_option(default: float, **more: Any) -> float:
    return option(
        default, "How far weights move in one training step, at most: it rises at first and falls to nothing at the end. 0: nothing learns.",
        title="Step size (learning rate)", ge=0, le=1, stops=RATES, **more,
    )  # fmt: skip


def batch_option(default: int, **more: Any) -> int:
    return option(
        default,
        "Training examples that one step looks at.",
        title="Examples a step (batch)",
        advanced=True,
        ge=2,
        le=512,
        stops=(4, 8, 16, 32, 64, 128),
        **more,
    )


def distill_weight_option() -> float:
    return option(
        0.0, "How much the uncompressed model's answers count beside the labels: 0 not at all, 1 alone.",
        title="Taught by the original (distillation)", ge=0, le=1,
    )  # fmt: skip


def temperature_option() -> float:
    return option(
        2.0, "Softens the answers of both models, so that small probabilities are learnt too.", title="Temperature", advanced=True, ge=0.1, le=20,
    )  # fmt: skip


def recovery_option() -> int:
    return option(
        0, "Training steps after it, in which the smaller layers, norms and biases learn from labelled examples (fine-tuning). 0: none.",
        title="Training afterwards (recovery steps)", ge=0, le=100_000, stops=(0, 50, 100, 200, 300, 500, 1000, 2000),
    )  # fmt: skip


def parts_option() -> int:
    return option(
        1, "A step's examples are gone through in so many parts, whose slopes are added up: the same step with less memory.",
        title="Parts of a step (accumulation)", advanced=True, ge=1, le=512, stops=(1, 2, 4, 8, 16),
    )  # fmt: skip


def patience_option(looks: str = "; there are ten in a whole course") -> int:
    return option(
        0, f"Training ends early when quality on held-out examples was not better so many looks in a row{looks}. 0: never.",
        title="Looks without gain (early stopping)", advanced=True, ge=0, le=10,
    )  # fmt: skip


def products_option(default: str = "auto") -> str:
    return option(
        default, "Number format in which matrices are multiplied while the model learns; weights, slopes and losses stay float32. bfloat16 is two to "
        "three times as fast on processors that multiply it (AVX-512 BF16, AMX), and on graphics cards; elsewhere float32 is used, and said.",
        title="Products while learning", advanced=True, words={"auto": "bfloat16 on a graphics card, else float32"},
    )  # fmt: skip
