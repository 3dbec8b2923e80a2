"""A training that is watched: judged on the way, kept at its best, ended early, and taken up again
after it was killed.
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
from engine.step.run_context import Bench
from engine.training.checkpoint import Checkpoint, State, loaded, saved, went_on
from engine.training.datasets import Exercises, Lessons
from engine.training.loop import Diverged, Loss, Quality, optimizer_of, quality_of, trained
from engine.training.training_config import Course

LOOKS = 10  # at what is held out, in a whole course


@dataclass
class Blend:
    """A loss of several terms, each with its weight. One of weight 0 is not even computed."""

    terms: dict[str, tuple[float, Loss]]
    # values since they were last asked for
    heard: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
        values = {
            name: term(logits, batch) for name, (weight, term) in self.terms.items() if weight
        }
        for name, value in values.items():
            self.heard[name].append(value.item())
        return sum(self.terms[name][0] * value for name, value in values.items())

    def taken(self) -> dict[str, float]:
        """The mean of each term since the last time."""
        means = {name: sum(values) / len(values) for name, values in self.heard.items()}
        self.heard.clear()
        return means


@dataclass
class Companion:
    """Additional model that is trained with a model and kept with it. It is trained when the model
    computes its loss, unless it continues by itself.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def go_on(self, step: int) -> list[CurveRow]:
        """After each of the model's steps, counted from 1; what is noted of it."""
        return []


@dataclass
class Study:
    """One model's way through a course. What it leaves in ``model`` is the best that was found on
    held-out examples, in ``rows`` all of it.
    """

    bench: Bench
    model: nn.Module
    lessons: Lessons
    course: Course
    loss: Blend
    phase: str = "student"
    patience: int = 0  # looks in a row without gain after which it ends; 0: none is too many
    file: Path | None = None  # where it is kept meanwhile
    looks_every: int = 0  # steps; 0: LOOKS in all
    rows: list[CurveRow] = field(default_factory=list)
    beside: Companion | None = None
    best: State = field(default_factory=dict)
    best_step: int = 0
    best_quality: Quality | None = None
    looked: int = -1  # step of the last look

    def go(self) -> None:
        self.optimizer = optimizer_of(self.model, self.course)
        begun = self.taken_up()
        if not begun:
            self.look(0)
        try:
            if not self.tired(begun):
                self.learn_from(begun)
        except Diverged as error:
            if not self.best_step:
                raise
            self.bench.notes.append(
                f"The loss was no number any more at training step {error.step}, so training "
                f"stopped there and went back to "
                f"step {self.best_step}, the best so far; a rate below "
                f"{self.course.rate:g} may go further."
            )
        self.model.load_state_dict(self.best, strict=False)

    def learn_from(self, begun: int) -> None:
        self.began = perf_counter()
        for step, loss in trained(
            self.model,
            self.lessons.train,
            self.course,
            self.loss,
            begun,
            self.optimizer,
            self.bench.notes.append,
        ):
            self.note(step, loss)
            self.record(self.beside.go_on(step) if self.beside else [])
            if self.over(step):
                break

    def over(self, step: int) -> bool:
        """Return True if training ends here; adds a note unless it is complete."""
        if self.bench.stops:
            self.look(step)
            self.bench.ended_early.append(EarlyEnd(step, self.course.steps, self.best_step))
            return True
        if step % self.every and step < self.course.steps:
            return False
        self.look(step)
        self.keep(step)
        if self.tired(step):
            self.bench.notes.append(
                f"Training ended at step {step} of {self.course.steps}: nothing was gained "
                f"since step {self.best_step}."
            )
        return self.tired(step)

    def tired(self, step: int) -> bool:
        """Return True if the patience of early stopping is exhausted."""
        return (
            bool(self.patience)
            and step < self.course.steps
            and step - self.best_step >= self.patience * self.every
        )

    @property
    def every(self) -> int:
        """Steps from one look at what is held out to the next."""
        return self.looks_every or max(1, self.course.steps // LOOKS)

    def look(self, step: int) -> None:
        """Judges, and keeps the state if there was none better; of equals the latest."""
        if step == self.looked:
            return
        quality, self.looked = quality_of(self.model, self.lessons.held_out), step
        self.add(step, {quality.name: quality.value})
        if self.best_quality is None or quality.at_least(self.best_quality):
            self.best_quality, self.best_step = quality, step
            self.best = self.moving()

    def moving(self) -> State:
        """A copy of everything that changes while the model learns."""
        return {name: value.clone() for name, value in self.held().items()}

    def held(self) -> State:
        """The same, as it goes on changing."""
        names = {name for name, value in self.model.named_parameters() if value.requires_grad} | {
            name for name, _ in self.model.named_buffers()
        }
        return {
            name: value.detach() for name, value in self.model.state_dict().items() if name in names
        }

    def note(self, step: int, loss: float) -> None:
        took, self.began = perf_counter() - self.began, perf_counter()
        terms = self.loss.taken()
        speed = min(self.course.batch, len(self.lessons.train)) / max(took, 1e-9)
        rate = self.course.rate_at(step - 1)
        paid = {"loss": loss} | (terms if len(terms) > 1 else {})
        self.add(step, paid | {"rate": rate, "examples per second": speed})
        event = TrainingEvent(
            "training",
            step,
            self.course.steps,
            network=self.phase,
            loss=loss,
            metric=self.best_quality.name,
            best=self.best_quality.value,
            rate=rate,
            examples_per_second=speed,
        )
        self.bench.tell(event)

    def add(self, step: int, values: dict[str, float]) -> None:
        self.record([CurveRow(step, self.phase, name, value) for name, value in values.items()])

    def record(self, rows: list[CurveRow]) -> None:
        self.rows.extend(rows)
        self.bench.stream(rows)

    # --- kept meanwhile ---------------------------------------------------------------------------

    def keep(self, step: int) -> None:
        beside = (
            {
                "beside": self.beside.model.state_dict(),
                "beside_optimizer": self.beside.optimizer.state_dict(),
            }
            if self.beside
            else {}
        )
        now = {
            "step": step,
            "model": self.held(),
            "optimizer": self.optimizer.state_dict(),
            "best_step": self.best_step,
            "best": self.best,
        }
        saved(Checkpoint(**now, **beside, rows=self.rows), self.file)

    def taken_up(self) -> int:
        """The steps that an earlier run has done; its curve is ours."""
        kept = loaded(Checkpoint, self.file, next(self.model.parameters()).device)
        if kept is None:
            return 0
        self.model.load_state_dict(kept.model, strict=False)
        self.optimizer.load_state_dict(kept.optimizer)
        if self.beside:
            self.beside.model.load_state_dict(kept.beside)
            self.beside.optimizer.load_state_dict(kept.beside_optimizer)
        self.best, self.best_step, self.looked = kept.best, kept.best_step, kept.step
        self.rows.extend(kept.rows)
        judged = [
            row
            for row in kept.rows
            if row.step == kept.best_step and row.name in ("accuracy", "perplexity")
        ]
        self.best_quality = Quality(judged[0].name, judged[0].value)
        self.bench.stream(kept.rows)
        self.bench.notes.append(went_on(kept.step, self.course.steps))
        return kept.step
