"""Training loop on ``accelerate``: AdamW, warm-up and cosine decay, gradient clipping, and all
randomness determined by the seed.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from accelerate import Accelerator
from torch import nn

from engine.errors import PlainError
from engine.evaluation.measured import evaluation_mode, inputs_on_device
from engine.training.accelerated import accelerator_for
from engine.training.datasets import EncodedExamples
from engine.training.losses import aligned_targets, label_loss
from engine.training.masks import GATE_RATE_FACTOR, HardConcreteGates
from engine.training.training_config import TrainingConfig

Loss = Callable[[torch.Tensor, EncodedExamples], torch.Tensor]  # (logits, batch) -> loss
POSITIONS_AT_ONCE = 4096  # tokens evaluated at once; for images, a sixteenth of it


class Diverged(PlainError):
    """The loss is not finite at a training step, counted from 1."""

    def __init__(self, step: int, rate: float):
        super().__init__(
            f"The loss became NaN or infinite at training step {step}; lower Learning rate "
            f"(rate), which is {rate:g}, or remove less."
        )
        self.step, self.rate = step, rate


def train_steps(
    model: nn.Module,
    examples: EncodedExamples,
    training_config: TrainingConfig,
    loss_of: Loss,
    first_step: int = 0,
    optimizer: torch.optim.Optimizer | None = None,
    on_note: Callable[[str], None] = lambda text: None,
    accelerator: Accelerator | None = None,
) -> Iterator[tuple[int, float]]:
    """Train in place, and yield the number of each step (from 1) with its loss.

    ``first_step``: number of steps already done; ``optimizer`` then holds their state.
    ``accelerator``: to train in another number format than the config's.

    Batch-norm statistics are updated, since pruning and rounding change the inputs; at a learning
    rate of 0 they stay as they are. A step that runs out of memory is repeated with smaller
    micro-batches, which is reported to ``on_note``. Raises Diverged if the loss is not finite.
    """
    accelerator = accelerator or accelerator_for(
        next(model.parameters()).device, training_config.half
    )
    optimizer = accelerator.prepare_optimizer(optimizer or make_optimizer(model, training_config))
    parts, modules = training_config.parts, list(model.modules())
    for step, rows in islice(
        zip(
            range(training_config.steps),
            batch_indices(len(examples), training_config),
            strict=False,
        ),
        first_step,
        None,
    ):
        for group in optimizer.param_groups:
            group["lr"] = group["pace"] * training_config.rate_at(step)
        set_training_mode(modules, training_config.updates_weights)
        while True:
            seed_generators(training_config.seed_at(step))  # of dropout and gates
            try:
                loss = forward_backward(
                    model,
                    [examples.subset(part) for part in rows.chunk(parts)],
                    accelerator,
                    loss_of,
                )
                break
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                parts = more_micro_batches(parts, len(rows), error)
                on_note(
                    f"There was not enough memory for {training_config.batch} examples at once, so "
                    f"each step takes them in {parts} parts from step {step + 1} on."
                )
        check_finite_loss(loss, step, training_config)
        accelerator.clip_grad_norm_(model.parameters(), training_config.clip)
        optimizer.step()
        set_training_mode(modules, False)
        yield step + 1, loss


def set_training_mode(modules: list[nn.Module], training: bool) -> None:
    """Faster ``train()`` and ``eval()``, which traverse the model twice per step: 2% of a small
    model's step.
    """
    for module in modules:
        vars(module)["training"] = training


def seed_generators(seed: int) -> None:
    """torch.manual_seed without its check for other devices, which takes 1% of a small model's
    step.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def forward_backward(
    model: nn.Module, micro_batches: list[EncodedExamples], accelerator: Accelerator, loss_of: Loss
) -> float:
    """Mean loss of a step's examples with gradient accumulation over micro-batches, each weighted
    by its share of the examples.
    """
    device, total = next(model.parameters()).device, 0.0
    model.zero_grad(set_to_none=True)
    with torch.inference_mode(False), torch.enable_grad():
        for part in micro_batches:
            share = len(part) / sum(map(len, micro_batches))
            with accelerator.autocast():
                loss = share * loss_of(batch_logits(model, part, device), part)
            if loss.isfinite():
                accelerator.backward(loss)
            total += loss.item()
    return total


def more_micro_batches(micro_batches: int, examples: int, error: Exception) -> int:
    """The next number of micro-batches. Raises the error again if it is not about memory, and a
    PlainError if a micro-batch has one example already.
    """
    if (
        isinstance(error, RuntimeError)
        and not isinstance(error, torch.OutOfMemoryError)
        and "allocate memory" not in str(error)
    ):
        raise error
    if micro_batches >= examples:
        raise PlainError(
            "Memory does not suffice to train on a single example; choose a smaller model, "
            "shorter texts, or more memory."
        ) from None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return min(examples, 2 * micro_batches)


def batch_logits(model: nn.Module, batch: EncodedExamples, device: torch.device) -> torch.Tensor:
    return model(**inputs_on_device(batch.inputs, model, device)).logits


def check_finite_loss(loss: float, step: int, training_config: TrainingConfig) -> None:
    if not math.isfinite(loss):
        raise Diverged(step + 1, training_config.rate)


def make_optimizer(model: nn.Module, training_config: TrainingConfig) -> torch.optim.Optimizer:
    """Optimizer with weight decay for matrices only, not for norms and biases, and a higher
    learning rate for gates.
    """
    gates = {
        id(module.openness) for module in model.modules() if isinstance(module, HardConcreteGates)
    }
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in learning if id(parameter) in gates],
            "weight_decay": 0.0,
            "pace": GATE_RATE_FACTOR,
        },
        {
            "params": [
                parameter
                for parameter in learning
                if id(parameter) not in gates and parameter.ndim >= 2
            ],
            "weight_decay": training_config.weight_decay,
            "pace": 1.0,
        },
        {
            "params": [
                parameter
                for parameter in learning
                if id(parameter) not in gates and parameter.ndim < 2
            ],
            "weight_decay": 0.0,
            "pace": 1.0,
        },
    ]
    return adamw_class(training_config)(
        [group for group in groups if group["params"]], lr=0.0, betas=(0.9, 0.98)
    )


def adamw_class(training_config: TrainingConfig) -> Callable[..., torch.optim.Optimizer]:
    """torch's fused AdamW, which is four times as fast on a CPU; or that of bitsandbytes (Dettmers
    et al. 2023, arXiv:2305.14314, section 3), which is slow to import and needs CUDA.
    """
    if not training_config.paged:
        return partial(torch.optim.AdamW, fused=True)
    from bitsandbytes.optim import PagedAdamW8bit

    return PagedAdamW8bit


def batch_indices(count: int, training_config: TrainingConfig) -> Iterator[torch.Tensor]:
    """Rows of one batch after the other, without end. An example is repeated after all others were
    used. (batch,)
    """
    draw, batch = (
        torch.Generator().manual_seed(training_config.seed),
        min(training_config.batch, count),
    )
    while True:
        order = torch.randperm(count, generator=draw)
        yield from (order[start : start + batch] for start in range(0, count - batch + 1, batch))


# --- how good it is meanwhile ---------------------------------------------------------------------


@dataclass(frozen=True)
class Quality:
    """Accuracy of a classifier or perplexity of a language model on held-out examples."""

    name: str
    value: float

    def relative_to(self, original: "Quality") -> float:
        """Quality relative to the original's, 1 if equal: the quotient of accuracies, or the
        inverse one of perplexities.
        """
        if self.name == "perplexity":
            return original.value / self.value
        return self.value / original.value if original.value else 0.0

    def is_at_least(self, other: "Quality") -> bool:
        return self.value <= other.value if self.name == "perplexity" else self.value >= other.value

    def __str__(self) -> str:
        return (
            f"perplexity {self.value:.4g}"
            if self.name == "perplexity"
            else f"accuracy {self.value:.1%}"
        )


def held_out_quality(model: nn.Module, examples: EncodedExamples) -> Quality:
    device = next(model.parameters()).device
    right = loss = count = 0.0
    with evaluation_mode(model, inference=False):
        for rows in torch.arange(len(examples)).split(evaluation_batch_size(examples)):
            batch = examples.subset(rows)
            logits, targets = aligned_targets(
                batch_logits(model, batch, device), batch.targets.to(device)
            )
            right += (logits.argmax(-1) == targets).sum().item()
            loss += label_loss_sum(logits, targets)
            count += len(targets)
    if examples.targets.ndim == 1:
        return Quality("accuracy", right / count)
    return Quality("perplexity", math.exp(min(700.0, loss / count)))


def label_loss_sum(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Sum over all positions."""
    return label_loss(logits, targets).item() * len(targets)


def evaluation_batch_size(examples: EncodedExamples) -> int:
    tokens = examples.inputs.get("input_ids")
    return (
        POSITIONS_AT_ONCE // 16 if tokens is None else max(1, POSITIONS_AT_ONCE // tokens.shape[1])
    )
