"""A model that learns while it is as it will be stored: the loop with its losses, looks at held-out examples, and the best state kept."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn

from engine.catalog.aware import Aware
from engine.results.tables import CurveRow
from engine.work.bench import Bench
from engine.work.models import resolve
from engine.work.opened import compute_place, opened
from engine.work.rebuilt import Subject
from engine.work.stored.modules import unpacked_once
from engine.work.threads import threads_to_train
from engine.work.training import Course, Exercises, Lessons, Pupil, Quality, lessons_for, quality_of, trained
from engine.work.training.loop import answers, at_rest
from engine.work.training.losses import by_labels, by_teacher

Penalty = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Look:
    """A model after some steps."""

    step: int
    quality: Quality  # on held-out examples
    state: dict[str, torch.Tensor]


@dataclass
class Learner:
    """One model, one course."""

    how: Aware
    bench: Bench
    pupil: Pupil
    phase: str  # as the curves call it
    lessons: Lessons
    penalty: Penalty | None = None  # what is paid for besides
    rows: list[CurveRow] = field(default_factory=list)
    terms: dict[str, float] = field(default_factory=dict)  # of the loss, at the step at hand
    best: Look | None = None

    def learn(self) -> None:
        """Leaves the pupil in its best state on held-out examples, which may be the one it began with."""
        course = Course(self.how.steps, self.how.rate, self.how.batch, self.bench.recipe.seed)
        self.bench.progress("Training", 0, self.how.steps)
        self.look(0)
        for step, loss in trained(self.pupil.model, self.lessons.train, course, self.loss):
            self.bench.progress(f"Training · loss {loss:.3f}", step, self.how.steps)
            self.note(step, self.terms | {"loss": loss, "rate": course.rate_at(step - 1)})
            if step % self.how.look_every == 0 or step == self.how.steps:
                self.look(step)
        self.pupil.come_back(self.best.state)
        self.note(self.best.step, {f"kept: {self.best.quality.name}": self.best.quality.value})

    def note(self, step: int, values: dict[str, float]) -> None:
        self.rows.extend(CurveRow(step, self.phase, name, value) for name, value in values.items())

    def look(self, step: int) -> None:
        quality = quality_of(self.pupil.model, self.lessons.held_out)
        self.note(step, {quality.name: quality.value})
        if self.best is None or better(quality, self.best.quality):
            self.best = Look(step, quality, self.changing())

    def changing(self) -> dict[str, torch.Tensor]:
        """A copy of everything that moves while the model learns."""
        model = self.pupil.model
        names = {name for name, value in model.named_parameters() if value.requires_grad} | {name for name, _ in model.named_buffers()}
        return {name: value.detach().clone() for name, value in model.state_dict().items() if name in names}

    def loss(self, logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
        """Labels and teacher in their shares, and what is paid for besides."""
        weight, terms = self.how.distill_weight, {}
        if weight < 1:
            terms["labels"] = (1 - weight) * by_labels(logits, batch.targets.to(logits.device))
        if weight > 0:
            terms["teacher"] = weight * by_teacher(logits, self.taught(batch, logits.device), self.how.temperature)
        if self.penalty:
            terms["regularizer"] = self.penalty()
        self.terms = {name: value.item() for name, value in terms.items()}
        return sum(terms.values())

    def taught(self, batch: Exercises, device: torch.device) -> torch.Tensor:
        """What the uncompressed model says."""
        with at_rest(self.teacher), unpacked_once(self.teacher):
            return answers(self.teacher, batch, device)

    @cached_property
    def teacher(self) -> nn.Module:
        """The recipe's own model, whatever earlier steps have made of it."""
        if not self.bench.step:
            return self.pupil.original.model
        return opened(resolve(self.bench.recipe.model), *compute_place(self.bench.recipe)).model


def better(one: Quality, other: Quality) -> bool:
    return one.value < other.value if one.name == "perplexity" else one.value > other.value


def learn(how: Aware, bench: Bench, subject: Subject, pupil: Pupil, phase: str, penalty: Penalty | None = None) -> None:
    """Trains the pupil; what was measured on the way is noted, however it ends."""
    lessons = lessons_for(bench.recipe.task, bench.recipe.calibration, bench.folder, how.steps * how.batch, bench.recipe.training)
    learner = Learner(how, bench, pupil, phase, lessons, penalty)
    try:
        with threads_to_train(subject.original.parameters):
            learner.learn()
    finally:
        subject.trial.rows.curves.extend(learner.rows)
