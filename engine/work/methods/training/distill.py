"""Distillation (Hinton et al. 2015, arXiv:1503.02531) and fine-tuning: a model is trained as a whole and takes the place of another."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from engine.catalog.distillation import Distill, FineTune, Learning
from engine.catalog.tasks import LanguageModeling
from engine.errors import Cancelled, PlainError
from engine.work.bench import Bench, Rows
from engine.work.methods.stages import blueprint, compress, outlined, sketch, taught
from engine.work.methods.training.adversary import Discriminator
from engine.work.methods.training.asking import with_answers
from engine.work.methods.training.blackbox import answered, written
from engine.work.methods.training.coursework import coursework
from engine.work.methods.training.peer import learning_together
from engine.work.methods.training.students import refuse_stranger, student_of
from engine.work.methods.training.tuition import Tuition, by_label, projections
from engine.work.methods.training.views import TwoViews, second_view
from engine.work.models import resolve
from engine.work.opened import Opened, compute_place, opened
from engine.work.rebuilt import Subject
from engine.work.stored.modules import install
from engine.work.stored.weights import Dense, Stored
from engine.work.successor import Successor
from engine.work.threads import threads_to_train
from engine.work.training import Blend, Companion, Course, Lessons, Quality, Study
from engine.work.training.accelerated import accelerator_for
from engine.work.training.checkpoint import file_in


@taught.register
def _(how: FineTune, bench: Bench, subject: Subject, rows: Rows) -> Successor:
    """From labels alone."""
    if bench.recipe.training and bench.recipe.training.unlabelled:
        raise PlainError(
            "Fine-tuning learns from labels alone, so examples without any teach it nothing; leave training.unlabelled out, or use distill."
        )
    school = School.of(how, bench, subject, rows)
    student = school.student(bench.recipe.seed)
    with threads_to_train(subject.original.parameters):
        school.train(student.model, Blend({"labels": (1.0, by_label)}))
    return student


@taught.register
def _(how: Distill, bench: Bench, subject: Subject, rows: Rows) -> Successor:
    school = School.of(how, bench, subject, rows)
    with threads_to_train(subject.original.parameters):
        match how.setting:
            case "self":
                return with_itself(how, school) if how.views == "two-views" else over_generations(how, school)
            case "black-box":
                return from_what_it_writes(how, school)
            case "online":
                return together(how, school)
            case _:
                teachers = [subject.original.model, *(further(name, bench).model for name in how.further)]
                student = school.student(bench.recipe.seed)
                by_teachers(how, school, student.model, teachers)
                return student


@dataclass(frozen=True)
class School:
    """Everything one training shares with the next."""

    how: Learning
    bench: Bench
    subject: Subject
    lessons: Lessons
    course: Course
    rows: Rows
    keeps: Path | None  # the folder in which trainings are kept meanwhile
    device: torch.device

    @classmethod
    def of(cls, how: Learning, bench: Bench, subject: Subject, rows: Rows) -> "School":
        lessons, course = coursework(how, bench)
        return cls(how, bench, subject, lessons, course, rows, subject.keeps(), compute_place(bench.recipe)[0])

    def student(self, seed: int) -> Successor:
        """Ready to learn, where the run computes."""
        begun = student_of(self.how, self.subject, seed)
        self.bench.notes.extend(note for note in reshaped(self.how, begun) if note not in self.bench.notes)
        return replace(begun, model=begun.model.to(self.device).requires_grad_(True))

    def asks_beforehand(self, tuition: Tuition) -> bool:
        """Whether every example's answer is wanted at least once, and nothing but the answer. A text's, one for each token, would fill the memory."""
        comes_again = self.course.steps * self.course.batch >= len(self.lessons.train)
        return bool(tuition.how.distill_weight) and comes_again and not tuition.compared and self.lessons.train.targets.ndim == 1

    def having_asked(self, tuition: Tuition) -> "School":
        with accelerator_for(self.device, self.course.half).autocast():
            train = with_answers(self.bench, self.lessons.train, lambda part: tuition.asked(part, self.device).float())
        return replace(self, lessons=replace(self.lessons, train=train))

    def train(self, model: nn.Module, loss: Blend, phase: str = "student", beside: Companion | None = None) -> Study:
        """To the best that is found, and how it went."""
        file = file_in(self.keeps, phase)
        study = Study(self.bench, model, self.lessons, self.course, loss, phase, self.how.patience, file, beside=beside)
        try:
            study.go()
        finally:
            self.rows.curves.extend(study.rows)
        return study


def reshaped(how: Learning, student: Successor) -> list[str]:
    """What a reader should know of a student that is not as its file has it."""
    drawn = f"{student.source} is a bare encoder, so the student began with a random head for its teacher's classes."
    cut = f"The student's attention is cut into {getattr(how, 'student_heads', 0)} heads, as wide together as before: that alone saves nothing."
    return [drawn] * student.source.bare + [cut] * bool(student.config and getattr(how, "student_heads", 0))


def by_teachers(how: Distill, school: School, student: nn.Module, teachers: list[nn.Module], phase: str = "student") -> Study:
    """What most settings have in common: fixed teachers, and a student that listens to them."""
    tuition = Tuition.of(how, student, teachers)
    with ExitStack() as held:
        held.enter_context(tuition.going_on())
        if school.asks_beforehand(tuition):
            school = school.having_asked(tuition)
        held.enter_context(projections(tuition, school.lessons.held_out.some(slice(0, 2)), school.course.seed))
        terms, adversary = tuition.terms(), None
        if how.setting == "adversarial":
            adversary = Discriminator.against(tuition, school.lessons.held_out, school.course)
            terms["discriminator"] = (how.adversarial_weight, adversary.not_deceived)
        return school.train(student, Blend(terms), phase, adversary)


def over_generations(how: Distill, school: School) -> Successor:
    """Each student teaches the next (born-again networks, Furlanello et al. 2018, arXiv:1805.04770). Where a person stops it, the best is kept."""
    teacher, best, ended = school.subject.original.model, None, len(school.bench.ended_early)
    for number in range(1, how.generations + 1):
        latest = a_generation(how, school, teacher, number, finished=best is not None)
        best = latest if latest and (best is None or latest.quality.at_least(best.quality)) else best
        if len(school.bench.ended_early) > ended:
            school.bench.ended_early[-1] = best.said_instead_of(school.bench.ended_early[-1], number)
            latest = best
            break
        teacher = latest.student.model
    latest.student.model.requires_grad_(True)
    return latest.student


@dataclass(frozen=True)
class Generation:
    """A student that has learnt, and where on its way it was best."""

    number: int
    student: Successor
    quality: Quality
    step: int

    def said_instead_of(self, ended: str, number: int) -> str:
        """Of a training that was ended in the generation of that number."""
        begun = f"{ended.partition(', as was asked for')[0].rstrip('.')} of generation {number}, as was asked for"
        return f"{begun}; the best of all generations is kept: what generation {self.number} knew at step {self.step}, with {self.quality}."


def a_generation(how: Distill, school: School, teacher: nn.Module, number: int, finished: bool) -> Generation | None:
    """None where it was stopped before its first step while there is a ``finished`` one."""
    student = school.student(school.course.seed + number - 1)
    try:
        study = by_teachers(how, school, student.model, [teacher], f"generation {number}")
    except Cancelled:
        if not finished:
            raise
        school.bench.ended_early.append("Training was ended before the first step")
        return None
    return Generation(number, student, study.best_quality, study.best_step)


def with_itself(how: Distill, school: School) -> Successor:
    """No teacher but its own second look."""
    student = school.student(school.course.seed)
    views = TwoViews(how, student.model, second_view(student.model, school.bench.folder))
    school.train(student.model, Blend(views.terms()))
    return student


def from_what_it_writes(how: Distill, school: School) -> Successor:
    """The student sees the teacher's words or choices, none of its probabilities."""
    teacher, bench = school.subject.original.model, school.bench
    if isinstance(bench.recipe.task, LanguageModeling):
        lessons = written(how, bench, teacher, school.lessons, school.device, school.rows)
    else:
        lessons = answered(how, bench, teacher, school.lessons, school.device, school.rows)
    student = school.student(bench.recipe.seed)
    replace(school, lessons=lessons).train(student.model, Blend({"labels": (1.0, by_label)}))
    return student


def together(how: Distill, school: School) -> Successor:
    """Deep mutual learning (Zhang et al. 2018, arXiv:1706.00384)."""
    student = school.student(school.course.seed)
    learning_together(how, school, student.model)
    return student


def further(name: str, bench: Bench) -> Opened:
    """Another teacher. Raises PlainError where it cannot teach beside the first."""
    folder = resolve(name)
    refuse_stranger(folder, bench.folder, "teacher")
    return opened(folder, *compute_place(bench.recipe))


# --- before it is done ---------------------------------------------------------------------------------------------------


@outlined.register
def _(how: Learning, subject: Subject) -> Opened:
    """The student without values: what will be written has its shapes."""
    student = student_of(how, subject, seed=0, valueless=True)
    student.model.to("meta", student.dtype)
    layers, plain = student.layers(), student.plain("meta")
    return Opened(install(student.model, {}, torch.float32, "meta"), layers, plain, torch.device("meta"))


@compress.register
def _(how: Learning, weight: torch.Tensor, seen: None = None) -> Stored:
    """A look at one layer: the weight that a student begins with, since what it becomes takes training to find."""
    return Dense(tuple(weight.shape), weight)


@blueprint.register
def _(how: Learning, shape: tuple[int, int]) -> Stored:
    return Dense(shape, sketch(*shape, dtype=torch.float32 if how.values == "model" else getattr(torch, how.values)))
