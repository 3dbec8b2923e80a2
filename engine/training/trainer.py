"""Training with evaluation on held-out examples: the best state is kept, early stopping ends it,
and a checkpoint resumes it after it was killed.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from engine.events import TrainingEvent
from engine.results.schema.tables import CurveRow
from engine.step.early_end import EarlyEnd
from engine.step.run_context import RunContext
from engine.training.checkpoint import (
    Checkpoint,
    State,
    read_checkpoint,
    resumed_note,
    write_checkpoint,
)
from engine.training.datasets import EncodedExamples, TrainingData
from engine.training.loop import (
    Diverged,
    Loss,
    Quality,
    held_out_quality,
    make_optimizer,
    train_steps,
)
from engine.training.training_config import TrainingConfig

EVALUATIONS = 10  # number of evaluations in a training


@dataclass
class WeightedLoss:
    """A loss of several weighted terms. Terms of weight 0 are not computed."""

    terms: dict[str, tuple[float, Loss]]
    # values since the last call of ``pop_means``
    recent_values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, logits: torch.Tensor, batch: EncodedExamples) -> torch.Tensor:
        values = {
            name: term(logits, batch) for name, (weight, term) in self.terms.items() if weight
        }
        for name, value in values.items():
            self.recent_values[name].append(value.item())
        return sum(self.terms[name][0] * value for name, value in values.items())

    def pop_means(self) -> dict[str, float]:
        """Mean of each term since the last call."""
        means = {name: sum(values) / len(values) for name, values in self.recent_values.items()}
        self.recent_values.clear()
        return means


@dataclass
class AuxiliaryModel:
    """Additional model that is trained with a model and saved with it. It is trained when the model
    computes its loss; ``after_step`` may train it separately.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def after_step(self, step: int) -> list[CurveRow]:
        """Called after each of the model's steps, counted from 1; returns rows for its curve."""
        return []


@dataclass
class Trainer:
    """Training of one model. ``model`` ends with the weights that were best on held-out examples;
    ``rows`` is the training curve.
    """

    context: RunContext
    model: nn.Module
    training_data: TrainingData
    training_config: TrainingConfig
    loss: WeightedLoss
    phase: str = "student"
    patience: int = 0  # evaluations without improvement before it stops; 0: no early stopping
    file: Path | None = None  # checkpoint file
    evaluate_every: int = 0  # steps; 0: EVALUATIONS in all
    rows: list[CurveRow] = field(default_factory=list)
    auxiliary: AuxiliaryModel | None = None
    best: State = field(default_factory=dict)
    best_step: int = 0
    best_quality: Quality | None = None
    last_evaluated_step: int = -1  # step of the last evaluation

    def run(self) -> None:
        self.optimizer = make_optimizer(self.model, self.training_config)
        begun = self.resume()
        if not begun:
            self.evaluate(0)
        try:
            if not self.out_of_patience(begun):
                self.train_from(begun)
        except Diverged as error:
            if not self.best_step:
                raise
            self.context.notes.append(
                f"The loss became NaN or infinite at training step {error.step}, so training "
                f"stopped there and went back to step {self.best_step}, the best so far; a rate "
                f"below {self.training_config.rate:g} may go further."
            )
        self.model.load_state_dict(self.best, strict=False)

    def train_from(self, first_step: int) -> None:
        self.began = perf_counter()
        for step, loss in train_steps(
            self.model,
            self.training_data.train,
            self.training_config,
            self.loss,
            first_step,
            self.optimizer,
            self.context.notes.append,
        ):
            self.record_step(step, loss)
            self.record(self.auxiliary.after_step(step) if self.auxiliary else [])
            if self.should_stop(step):
                break

    def should_stop(self, step: int) -> bool:
        """Return True if training ends here; adds a note unless it is complete."""
        if self.context.is_stopping:
            self.evaluate(step)
            self.context.ended_early.append(
                EarlyEnd(step, self.training_config.steps, self.best_step)
            )
            return True
        if step % self.evaluation_interval and step < self.training_config.steps:
            return False
        self.evaluate(step)
        self.save(step)
        if self.out_of_patience(step):
            self.context.notes.append(
                f"Training ended at step {step} of {self.training_config.steps}: nothing was "
                f"gained since step {self.best_step}."
            )
        return self.out_of_patience(step)

    def out_of_patience(self, step: int) -> bool:
        """Return True if the patience of early stopping is exhausted."""
        return (
            bool(self.patience)
            and step < self.training_config.steps
            and step - self.best_step >= self.patience * self.evaluation_interval
        )

    @property
    def evaluation_interval(self) -> int:
        """Steps between evaluations on held-out examples."""
        return self.evaluate_every or max(1, self.training_config.steps // EVALUATIONS)

    def evaluate(self, step: int) -> None:
        """Evaluate, and keep the state if it is at least as good as the best one."""
        if step == self.last_evaluated_step:
            return
        quality, self.last_evaluated_step = (
            held_out_quality(self.model, self.training_data.held_out),
            step,
        )
        self.add(step, {quality.name: quality.value})
        if self.best_quality is None or quality.is_at_least(self.best_quality):
            self.best_quality, self.best_step = quality, step
            self.best = self.trainable_state_copy()

    def trainable_state_copy(self) -> State:
        """Copy of all tensors that change during training."""
        return {name: value.clone() for name, value in self.trainable_state().items()}

    def trainable_state(self) -> State:
        """Trainable parameters and buffers, as views that change during training."""
        names = {name for name, value in self.model.named_parameters() if value.requires_grad} | {
            name for name, _ in self.model.named_buffers()
        }
        return {
            name: value.detach() for name, value in self.model.state_dict().items() if name in names
        }

    def record_step(self, step: int, loss: float) -> None:
        took, self.began = perf_counter() - self.began, perf_counter()
        terms = self.loss.pop_means()
        speed = min(self.training_config.batch, len(self.training_data.train)) / max(took, 1e-9)
        rate = self.training_config.rate_at(step - 1)
        paid = {"loss": loss} | (terms if len(terms) > 1 else {})
        self.add(step, paid | {"rate": rate, "examples per second": speed})
        event = TrainingEvent(
            "training",
            step,
            self.training_config.steps,
            network=self.phase,
            loss=loss,
            metric=self.best_quality.name,
            best=self.best_quality.value,
            rate=rate,
            examples_per_second=speed,
        )
        self.context.report_stage(event)

    def add(self, step: int, values: dict[str, float]) -> None:
        self.record([CurveRow(step, self.phase, name, value) for name, value in values.items()])

    def record(self, rows: list[CurveRow]) -> None:
        self.rows.extend(rows)
        self.context.stream(rows)

    # --- kept meanwhile ---------------------------------------------------------------------------

    def save(self, step: int) -> None:
        beside = (
            {
                "beside": self.auxiliary.model.state_dict(),
                "beside_optimizer": self.auxiliary.optimizer.state_dict(),
            }
            if self.auxiliary
            else {}
        )
        state = {
            "step": step,
            "model": self.trainable_state(),
            "optimizer": self.optimizer.state_dict(),
            "best_step": self.best_step,
            "best": self.best,
        }
        write_checkpoint(Checkpoint(**state, **beside, rows=self.rows), self.file)

    def resume(self) -> int:
        """Load the checkpoint of an earlier run, with its curve, and return the number of its
        steps.
        """
        checkpoint = read_checkpoint(Checkpoint, self.file, next(self.model.parameters()).device)
        if checkpoint is None:
            return 0
        self.model.load_state_dict(checkpoint.model, strict=False)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        if self.auxiliary:
            self.auxiliary.model.load_state_dict(checkpoint.beside)
            self.auxiliary.optimizer.load_state_dict(checkpoint.beside_optimizer)
        self.best, self.best_step, self.last_evaluated_step = (
            checkpoint.best,
            checkpoint.best_step,
            checkpoint.step,
        )
        self.rows.extend(checkpoint.rows)
        rows = [
            row
            for row in checkpoint.rows
            if row.step == checkpoint.best_step and row.name in ("accuracy", "perplexity")
        ]
        self.best_quality = Quality(rows[0].name, rows[0].value)
        self.context.stream(checkpoint.rows)
        self.context.notes.append(resumed_note(checkpoint.step, self.training_config.steps))
        return checkpoint.step
