"""The one loop, on ``accelerate``: AdamW, a rise and a cosine, clipped gradients; every draw known
from the seed.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from accelerate import Accelerator
from torch import nn

from engine.errors import PlainError
from engine.evaluation.measured import placed
from engine.training.accelerated import accelerator_for
from engine.training.datasets import Exercises
from engine.training.losses import aligned, by_labels
from engine.training.masks import GATE_PACE, Gates
from engine.training.training_config import Course

Loss = Callable[[torch.Tensor, Exercises], torch.Tensor]  # of logits, for the exercises they answer
PLACES = 4096  # tokens that are judged at once; pictures, a sixteenth of it


class Diverged(PlainError):
    """The loss was no number any more, at a training step counted from 1."""

    def __init__(self, step: int, rate: float):
        super().__init__(
            f"The loss was no number any more at training step {step}; lower rate, which is "
            f"{rate:g}, or remove less."
        )
        self.step, self.rate = step, rate


def trained(
    model: nn.Module,
    exercises: Exercises,
    course: Course,
    loss_of: Loss,
    begun: int = 0,
    optimizer: torch.optim.Optimizer | None = None,
    said: Callable[[str], None] = lambda text: None,
    accelerator: Accelerator | None = None,
) -> Iterator[tuple[int, float]]:
    """Trains in place for as long as it is asked to go on: yields after each step, with its number
    from 1 and its loss.
    Where ``begun``, the first steps of the course lie behind it; ``optimizer`` is one that
    remembers them. ``accelerator``: in another number
    format than the course's.

    Batch norms learn and count again, since what they see changes with every cut; at a rate of 0
    nothing moves, and neither do they.
    A step that memory does not suffice for is tried again in smaller parts, which is ``said``.
    Raises Diverged when the loss is no number.
    """
    accelerator = accelerator or accelerator_for(next(model.parameters()).device, course.half)
    optimizer = accelerator.prepare_optimizer(optimizer or optimizer_of(model, course))
    parts, modules = course.parts, list(model.modules())
    for step, rows in islice(
        zip(range(course.steps), drawn(len(exercises), course), strict=False), begun, None
    ):
        for group in optimizer.param_groups:
            group["lr"] = group["pace"] * course.rate_at(step)
        switch(modules, course.learns)
        while True:
            seed_draws(course.seed_at(step))  # dropout's, and the gates'
            try:
                loss = slopes_of(
                    model,
                    [exercises.some(part) for part in rows.chunk(parts)],
                    accelerator,
                    loss_of,
                )
                break
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                parts = smaller(parts, len(rows), error)
                said(
                    f"Memory did not suffice for {course.batch} examples at once, so each "
                    f"step takes them in {parts} parts from step {step + 1} on."
                )
        refuse_nonsense(loss, step, course)
        accelerator.clip_grad_norm_(model.parameters(), course.clip)
        optimizer.step()
        switch(modules, False)
        yield step + 1, loss


def switch(modules: list[nn.Module], learning: bool) -> None:
    """``train()`` and ``eval()``, which twice a step look through the model again: two hundredths
    of
    a small model's step.
    """
    for each in modules:
        vars(each)["training"] = learning


def seed_draws(seed: int) -> None:
    """torch.manual_seed without its look for devices there are not, which costs a hundredth of a
    small model's step.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def slopes_of(
    model: nn.Module, parts: list[Exercises], accelerator: Accelerator, loss_of: Loss
) -> float:
    """The mean loss of a step's examples, whose gradients are added up part by part (accumulation),
    each by how many of the examples it has.
    """
    device, total = next(model.parameters()).device, 0.0
    model.zero_grad(set_to_none=True)
    with torch.inference_mode(False), torch.enable_grad():
        for part in parts:
            share = len(part) / sum(map(len, parts))
            with accelerator.autocast():
                loss = share * loss_of(answers(model, part, device), part)
            if loss.isfinite():
                accelerator.backward(loss)
            total += loss.item()
    return total


def smaller(parts: int, examples: int, error: Exception) -> int:
    """The next number of parts. Raises the error again where it is another one, and a PlainError
    where a part is one example already.
    """
    if (
        isinstance(error, RuntimeError)
        and not isinstance(error, torch.OutOfMemoryError)
        and "allocate memory" not in str(error)
    ):
        raise error
    if parts >= examples:
        raise PlainError(
            "Memory does not suffice to train on a single example; choose a smaller model, "
            "shorter texts, or more memory."
        ) from None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return min(examples, 2 * parts)


def answers(model: nn.Module, batch: Exercises, device: torch.device) -> torch.Tensor:
    return model(**placed(batch.inputs, model, device)).logits


def refuse_nonsense(loss: float, step: int, course: Course) -> None:
    if not math.isfinite(loss):
        raise Diverged(step + 1, course.rate)


def optimizer_of(model: nn.Module, course: Course) -> torch.optim.Optimizer:
    """Matrices decay, norms and biases do not; gates move faster than weights."""
    gates = {id(each.openness) for each in model.modules() if isinstance(each, Gates)}
    learning = [each for each in model.parameters() if each.requires_grad]
    groups = [
        {
            "params": [each for each in learning if id(each) in gates],
            "weight_decay": 0.0,
            "pace": GATE_PACE,
        },
        {
            "params": [each for each in learning if id(each) not in gates and each.ndim >= 2],
            "weight_decay": course.decay,
            "pace": 1.0,
        },
        {
            "params": [each for each in learning if id(each) not in gates and each.ndim < 2],
            "weight_decay": 0.0,
            "pace": 1.0,
        },
    ]
    return adamw_of(course)(
        [group for group in groups if group["params"]], lr=0.0, betas=(0.9, 0.98)
    )


def adamw_of(course: Course) -> Callable[..., torch.optim.Optimizer]:
    """torch's in one go over each tensor (fused), four times as fast on a CPU as operation by
    operation; or bitsandbytes' (Dettmers et al. 2023,
    arXiv:2305.14314, section 3), which is slow to import and no use without CUDA.
    """
    if not course.paged:
        return partial(torch.optim.AdamW, fused=True)
    from bitsandbytes.optim import PagedAdamW8bit

    return PagedAdamW8bit


def drawn(count: int, course: Course) -> Iterator[torch.Tensor]:
    """Rows of one batch after the other, without end; an example comes again when all others have
    come.  (batch,)
    """
    draw, batch = torch.Generator().manual_seed(course.seed), min(course.batch, count)
    while True:
        order = torch.randperm(count, generator=draw)
        yield from (order[start : start + batch] for start in range(0, count - batch + 1, batch))


# --- how good it is meanwhile ---------------------------------------------------------------------


@dataclass(frozen=True)
class Quality:
    """On examples held out: the accuracy of a classifier, a language model's perplexity."""

    name: str
    value: float

    def share_of(self, original: "Quality") -> float:
        """1 where it is as good as the original's; of perplexities, the original's by this one."""
        if self.name == "perplexity":
            return original.value / self.value
        return self.value / original.value if original.value else 0.0

    def at_least(self, other: "Quality") -> bool:
        return self.value <= other.value if self.name == "perplexity" else self.value >= other.value

    def __str__(self) -> str:
        return (
            f"perplexity {self.value:.4g}"
            if self.name == "perplexity"
            else f"accuracy {self.value:.1%}"
        )


def quality_of(model: nn.Module, exercises: Exercises) -> Quality:
    device = next(model.parameters()).device
    right = loss = places = 0.0
    with at_rest(model):
        for rows in torch.arange(len(exercises)).split(rows_at_once(exercises)):
            batch = exercises.some(rows)
            logits, targets = aligned(answers(model, batch, device), batch.targets.to(device))
            right += (logits.argmax(-1) == targets).sum().item()
            loss += by_labels_of(logits, targets)
            places += len(targets)
    if exercises.targets.ndim == 1:
        return Quality("accuracy", right / places)
    return Quality("perplexity", math.exp(min(700.0, loss / places)))


def by_labels_of(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """The sum over all places."""
    return by_labels(logits, targets).item() * len(targets)


def rows_at_once(exercises: Exercises) -> int:
    tokens = exercises.inputs.get("input_ids")
    return PLACES // 16 if tokens is None else max(1, PLACES // tokens.shape[1])


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Neither gradients nor dropout; the model's mode is given back."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
