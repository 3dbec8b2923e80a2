"""State and steps that all trainings of one distillation run share."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from engine.models.loaded_model import compute_place
from engine.step.pruning_plan import Subject
from engine.step.replacement_model import Successor
from engine.step.run_context import Bench
from engine.step.table_builder import TableBuilder
from engine.techniques.distillation.distill.config import Learning
from engine.techniques.distillation.distill.distillation_loss import Tuition
from engine.techniques.distillation.distill.students import student_of
from engine.techniques.distillation.distill.teacher_logits import with_answers
from engine.techniques.training.training_setup import coursework
from engine.training import Blend, Companion, Course, Lessons, Study
from engine.training.accelerated import accelerator_for
from engine.training.checkpoint import file_in


@dataclass(frozen=True)
class DistillRun:
    """State shared by the trainings of one run."""

    how: Learning
    bench: Bench
    subject: Subject
    lessons: Lessons
    course: Course
    rows: TableBuilder
    keeps: Path | None  # the folder in which trainings are kept meanwhile
    device: torch.device

    @classmethod
    def of(cls, how: Learning, bench: Bench, subject: Subject, rows: TableBuilder) -> "DistillRun":
        lessons, course = coursework(how, bench)
        return cls(
            how,
            bench,
            subject,
            lessons,
            course,
            rows,
            subject.keeps(),
            compute_place(bench.recipe)[0],
        )

    def student(self, seed: int) -> Successor:
        """Prepare the student for training on the run's device."""
        begun = student_of(self.how, self.subject, seed)
        self.bench.notes.extend(
            note for note in reshaped(self.how, begun) if note not in self.bench.notes
        )
        return replace(begun, model=begun.model.to(self.device).requires_grad_(True))

    def asks_beforehand(self, tuition: Tuition) -> bool:
        """Return True if all teacher predictions are computed before training: every example is
        used, and only its prediction. Predictions for
        every token of a text would fill the memory.
        """
        comes_again = self.course.steps * self.course.batch >= len(self.lessons.train)
        return (
            bool(tuition.how.distill_weight)
            and comes_again
            and not tuition.compared
            and self.lessons.train.targets.ndim == 1
        )

    def having_asked(self, tuition: Tuition) -> "DistillRun":
        with accelerator_for(self.device, self.course.half).autocast():
            train = with_answers(
                self.bench,
                self.lessons.train,
                lambda part: tuition.asked(part, self.device).float(),
            )
        return replace(self, lessons=replace(self.lessons, train=train))

    def train(
        self, model: nn.Module, loss: Blend, phase: str = "student", beside: Companion | None = None
    ) -> Study:
        """Train a model to its best state and record the training curve."""
        file = file_in(self.keeps, phase)
        study = Study(
            self.bench,
            model,
            self.lessons,
            self.course,
            loss,
            phase,
            self.how.patience,
            file,
            beside=beside,
        )
        try:
            study.go()
        finally:
            self.rows.curves.extend(study.rows)
        return study


def reshaped(how: Learning, student: Successor) -> list[str]:
    """Notes on a student that differs from its file."""
    drawn = (
        f"{student.source} is a bare encoder, so the student began with a random head for its "
        "teacher's classes."
    )
    cut = (
        f"The student's attention is cut into {getattr(how, 'student_heads', 0)} heads, as wide "
        "together as before: that alone saves nothing."
    )
    return [drawn] * student.source.bare + [cut] * bool(
        student.config and getattr(how, "student_heads", 0)
    )
