"""A model that learns while it is as it will be stored: from labels, from the uncompressed model,
and from what it pays for besides.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from engine.config.technique import Technique
from engine.errors import PlainError
from engine.events import TrainingEvent
from engine.models.loaded_model import compute_place, opened
from engine.models.loading import resolve
from engine.models.packed_modules import unpacked_once
from engine.results.schema.tables import CurveRow
from engine.runtime.threads import threads_to_train
from engine.step.pruning_plan import Subject
from engine.step.run_context import Bench
from engine.techniques.training.options import Aware
from engine.techniques.training.training_setup import coursework
from engine.techniques.training.vocabulary import over_shared_tokens, token_count
from engine.training import Blend, Course, Exercises, Lessons, Pupil, Study
from engine.training.checkpoint import file_in
from engine.training.loop import Loss, answers, at_rest
from engine.training.losses import by_labels, by_teacher

Penalty = Callable[[], torch.Tensor]


@dataclass
class Learner:
    """One model, one course."""

    how: Aware
    bench: Bench
    pupil: Pupil
    phase: str  # as the curves call it
    lessons: Lessons
    course: Course
    penalty: Penalty | None = None  # what is paid for besides
    file: Path | None = None  # where it is kept meanwhile
    rows: list[CurveRow] = field(default_factory=list)

    def learn(self) -> None:
        """Leaves the pupil in its best state on held-out examples, which may be the one it began
        with.
        """
        kept = {
            "patience": self.how.patience,
            "file": self.file,
            "looks_every": self.how.look_every,
            "rows": self.rows,
        }
        study = Study(
            self.bench,
            self.pupil.model,
            self.lessons,
            self.course,
            Blend(self.terms()),
            self.phase,
            **kept,
        )
        self.bench.progress(TrainingEvent("training", 0, self.course.steps))
        study.go()

    def terms(self) -> dict[str, tuple[float, Loss]]:
        weight = self.how.distill_weight
        paid = (1.0, lambda logits, batch: self.penalty()) if self.penalty else (0.0, None)
        return {
            "labels": (1 - weight, self.labels),
            "teacher": (weight, self.taught),
            "regularizer": paid,
        }

    def labels(self, logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
        return by_labels(logits, batch.targets.to(logits.device))

    def taught(self, logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
        """Beside what the uncompressed model says."""
        with at_rest(self.teacher), unpacked_once(self.teacher):
            said = answers(self.teacher, batch, logits.device)
        return by_teacher(
            *over_shared_tokens([logits, said], token_count(self.bench.folder)),
            self.how.temperature,
        )

    @cached_property
    def teacher(self) -> nn.Module:
        """The recipe's own model, whatever earlier steps have made of it."""
        if not self.bench.step:
            return self.pupil.original.model
        return opened(resolve(self.bench.recipe.model), *compute_place(self.bench.recipe)).model


def refuse_pages(how: Technique, device: torch.device) -> None:
    """Raises PlainError where a paged optimizer is asked for and there is no GPU whose memory it
    could leave.
    """
    if isinstance(how, Aware) and how.pages and device.type != "cuda":
        raise PlainError(
            "The paged optimizer needs a CUDA device, and this run computes on the "
            f"{device.type}; set optimizer to adamw, or run where there is one."
        )


def learn(
    how: Aware,
    bench: Bench,
    subject: Subject,
    pupil: Pupil,
    phase: str,
    penalty: Penalty | None = None,
) -> None:
    """Trains the pupil; what was measured on the way is noted, however it ends."""
    lessons, course = coursework(how, bench)
    with threads_to_train(subject.original.parameters):
        Learner(
            how,
            bench,
            pupil,
            phase,
            lessons,
            course,
            penalty,
            file_in(subject.keeps(), phase),
            subject.trial.rows.curves,
        ).learn()
