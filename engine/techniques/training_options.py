"""Options shared by techniques that train: learning rate, batch size, precision, early stopping."""

from typing import Any

from engine.config.technique import option

RATES = (0.0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def rate_option(default: float, **more: Any) -> float:
    return option(
        default,
        "Peak learning rate, with linear warm-up and cosine decay to zero. At 0 nothing is "
        "trained.",
        title="Learning rate",
        ge=0,
        le=1,
        stops=RATES,
        **more,
    )


def batch_option(default: int, **more: Any) -> int:
    return option(
        default,
        "Number of training examples per step.",
        title="Batch size",
        advanced=True,
        ge=2,
        le=512,
        stops=(4, 8, 16, 32, 64, 128),
        **more,
    )


def distill_weight_option(default: float = 0.0) -> float:
    return option(
        default,
        "Weight of the uncompressed model's predictions in the loss: 0 uses labels only, 1 uses "
        "the original model only. Values above 0 reduce overfitting on little text, but the "
        "original model also runs at each step.",
        title="Distillation from the original",
        ge=0,
        le=1,
    )


def temperature_option() -> float:
    return option(
        2.0,
        "Softens the predictions of both models so that small probabilities contribute to the "
        "loss.",
        title="Temperature",
        advanced=True,
        ge=0.1,
        le=20,
    )


def recovery_option() -> int:
    return option(
        0,
        "Fine-tuning steps after the factorization: the factors, norms and biases are trained on "
        "labeled examples. 0 turns fine-tuning off.",
        title="Fine-tuning steps",
        ge=0,
        le=100_000,
        stops=(0, 50, 100, 200, 300, 500, 1000, 2000),
    )


def accumulation_option() -> int:
    return option(
        1,
        "Splits each batch into this many micro-batches and accumulates their gradients: same "
        "update, less memory.",
        title="Gradient accumulation steps",
        advanced=True,
        ge=1,
        le=512,
        stops=(1, 2, 4, 8, 16),
    )


def patience_option(evaluations: str = " (a run evaluates ten times)") -> int:
    """Early-stopping patience; ``evaluations`` describes how often the technique evaluates."""
    return option(
        0,
        (
            "Stops after this many evaluations in a row without improvement on held-out "
            f"examples{evaluations}. 0 disables early stopping."
        ),
        title="Early-stopping patience",
        advanced=True,
        ge=0,
        le=10,
    )


def precision_option(default: str = "auto") -> Any:
    return option(
        default,
        "Number format of matrix products during training; weights, gradients and losses stay in "
        "float32. bfloat16 is two to three times as fast on GPUs and on CPUs with AVX-512 BF16 or "
        "AMX. Elsewhere float32 is used and a note says so.",
        title="Compute precision",
        advanced=True,
        words={"auto": "bfloat16 on a GPU, otherwise float32"},
    )
