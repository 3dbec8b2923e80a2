"""Training loop of the bundled models: AdamW with warm-up, a plateau and a linear decay to zero. It
can resume at any step.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.quantities import duration
from engine.results.store.atomic_files import file_draft


@dataclass(frozen=True)
class Schedule:
    steps: int
    peak_rate: float
    warmup: int = 200
    decay_share: float = 0.3  # share of all steps, at the end

    def rate(self, step: int) -> float:
        """Learning rate of a step: warm-up, plateau, linear decay."""
        left = (self.steps - step) / max(1, self.decay_share * self.steps)
        return self.peak_rate * min(1.0, (step + 1) / self.warmup, left)


@dataclass
class TrainingCurve:
    """Points of the training curve: (step, mean training loss since the last point,
    held-out loss).
    """

    points: list[tuple[int, float, float]]


def optimizer_of(model: torch.nn.Module, weight_decay: float = 0.1) -> torch.optim.AdamW:
    """AdamW with weight decay for matrices only, not for norms and biases."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True)


def train(
    model: torch.nn.Module,
    loss_of: Callable[[int], torch.Tensor],
    held_out_loss: Callable[[], float],
    schedule: Schedule,
    checkpoint: Path,
    every: int = 200,
) -> TrainingCurve:
    """Train in place. ``loss_of(step)`` samples its batch by the step, so a resumed run continues
    the same stream. Every ``every`` steps the held-out loss is measured and a checkpoint is
    written.
    """
    optimizer, first, curve = optimizer_of(model), 0, TrainingCurve([])
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, curve = state["step"], TrainingCurve([tuple(point) for point in state["curve"]])
    running, start = [], time.perf_counter()
    for step in range(first, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        loss = loss_of(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        running.append(loss.item())
        if (step + 1) % every == 0 or step + 1 == schedule.steps:
            curve.points.append((step + 1, sum(running) / len(running), held_out_loss()))
            save_checkpoint(checkpoint, model, optimizer, step + 1, curve)
            seconds_each = (time.perf_counter() - start) / (step + 1 - first)
            print(progress_line(curve.points[-1], schedule.steps, seconds_each), flush=True)
            running = []
    return curve


def save_checkpoint(
    path: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    curve: TrainingCurve,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "curve": curve.points,
    }
    with file_draft(path) as draft:
        torch.save(state, draft)


def progress_line(point: tuple[int, float, float], steps: int, seconds_each: float) -> str:
    step, training, held_out = point
    left = (steps - step) * seconds_each
    return (
        f"step {step}/{steps}  loss {training:.3f}  held out {held_out:.3f} (perplexity "
        f"{math.exp(held_out):.2f})  {duration(left)} left"
    )


def curve_table(curve: TrainingCurve, rows: int = 12) -> str:
    """The curve as a Markdown table, thinned to at most ``rows`` lines and always ending with the
    last point.
    """
    stride = max(1, math.ceil(len(curve.points) / rows))
    shown = curve.points[::-1][::stride][::-1]
    lines = [f"| {step} | {training:.3f} | {held_out:.3f} |" for step, training, held_out in shown]
    return "\n".join(["| step | training loss | held-out loss |", "|---|---|---|", *lines])
