"""The loop: AdamW, a rise and a cosine, clipped slopes; every draw known from the seed."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from engine.errors import PlainError
from engine.work.tasks.measured import placed
from engine.work.training.course import Course
from engine.work.training.cuts import GATE_PACE, Gates
from engine.work.training.lessons import Exercises
from engine.work.training.losses import aligned, by_labels

Loss = Callable[[torch.Tensor, Exercises], torch.Tensor]  # of logits, for the exercises they answer
PLACES = 4096  # tokens that are judged at once; pictures, a sixteenth of it


def trained(model: nn.Module, exercises: Exercises, course: Course, loss_of: Loss, begun: int = 0) -> Iterator[tuple[int, float]]:
    """Trains in place for as long as it is asked to go on: yields after each step, with its number from 1 and its loss.
    Where ``begun``, the first steps of the course lie behind it.

    Batch norms learn and count anew, since what they see changes with every cut; at a rate of 0 nothing moves, and neither do they.
    Raises PlainError when the loss is no number.
    """
    device = next(model.parameters()).device
    torch.manual_seed(course.seed)  # dropout's, and the gates'
    optimizer = optimizer_of(model, course)
    for step, rows in islice(zip(range(course.steps), drawn(len(exercises), course), strict=False), begun, None):
        for group in optimizer.param_groups:
            group["lr"] = group["pace"] * course.rate_at(step)
        batch = exercises.some(rows)
        model.train(course.learns)
        with torch.inference_mode(False), torch.enable_grad():
            loss = loss_of(answers(model, batch, device), batch)
            refuse_nonsense(loss, step, course)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), course.clip)
        optimizer.step()
        model.eval()
        yield step + 1, loss.item()


def answers(model: nn.Module, batch: Exercises, device: torch.device) -> torch.Tensor:
    return model(**placed(batch.inputs, model, device)).logits


def refuse_nonsense(loss: torch.Tensor, step: int, course: Course) -> None:
    if not loss.isfinite():
        raise PlainError(f"The loss was no number any more at training step {step + 1}; lower rate, which is {course.rate:g}, or remove less.")


def optimizer_of(model: nn.Module, course: Course) -> torch.optim.AdamW:
    """Matrices decay, norms and biases do not; gates move faster than weights."""
    gates = {id(each.openness) for each in model.modules() if isinstance(each, Gates)}
    learning = [each for each in model.parameters() if each.requires_grad]
    groups = [
        {"params": [each for each in learning if id(each) in gates], "weight_decay": 0.0, "pace": GATE_PACE},
        {"params": [each for each in learning if id(each) not in gates and each.ndim >= 2], "weight_decay": course.decay, "pace": 1.0},
        {"params": [each for each in learning if id(each) not in gates and each.ndim < 2], "weight_decay": 0.0, "pace": 1.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, betas=(0.9, 0.98))


def drawn(count: int, course: Course) -> Iterator[torch.Tensor]:
    """Rows of one batch after the other, without end; an example comes again when all others have come.  (batch,)"""
    draw, batch = torch.Generator().manual_seed(course.seed), min(course.batch, count)
    while True:
        order = torch.randperm(count, generator=draw)
        yield from (order[start : start + batch] for start in range(0, count - batch + 1, batch))


# --- how good it is meanwhile ----------------------------------------------------------------------------------------


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
    """Neither slopes nor dropout; the model's mode is given back."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
