"""Distillation (Hinton et al. 2015, arXiv:1503.02531) and fine-tuning: a model is trained as a
whole and takes the place of another.
"""

from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import nn

from engine.errors import Cancelled, PlainError
from engine.measurement.size import origin_of_replacement
from engine.models.loaded_model import Opened, compute_place, opened
from engine.models.loading import resolve
from engine.models.packed_modules import install
from engine.recipe import Recipe
from engine.recipe.tasks import LanguageModeling, MaskedLanguageModeling
from engine.runtime.threads import threads_to_train
from engine.step.early_end import EarlyEnd, GenerationsEnd
from engine.step.pruning_plan import Subject
from engine.step.replacement_model import Successor
from engine.step.run_context import Bench, Rows
from engine.techniques.distillation.distill.adversarial import Discriminator
from engine.techniques.distillation.distill.config import Distill, FineTune, Learning
from engine.techniques.distillation.distill.distill_run import DistillRun
from engine.techniques.distillation.distill.distillation_loss import Tuition, by_label, projections
from engine.techniques.distillation.distill.mutual_learning import learning_together
from engine.techniques.distillation.distill.r_drop import TwoViews, second_view
from engine.techniques.distillation.distill.sequence_level import answered, written
from engine.techniques.distillation.distill.students import refuse_stranger, student_of
from engine.techniques.hooks import blueprint, compress, outlined, refuse_unfit, sketch, taught
from engine.techniques.training.vocabulary import token_count
from engine.tensors.weights import Dense, Stored
from engine.training import Blend, Quality, Study


@taught.register
def taught_fine_tune(how: FineTune, bench: Bench, subject: Subject, rows: Rows) -> Successor:
    """From labels alone."""
    if bench.recipe.training and bench.recipe.training.unlabelled:
        raise PlainError(
            "Fine-tuning learns from labels alone, so examples without any teach it nothing; "
            "leave training.unlabelled out, or use distill."
        )
    run = DistillRun.of(how, bench, subject, rows)
    student = run.student(bench.recipe.seed)
    with threads_to_train(subject.original.parameters):
        run.train(student.model, Blend({"labels": (1.0, by_label)}))
    return student


@taught.register
def taught_distill(how: Distill, bench: Bench, subject: Subject, rows: Rows) -> Successor:
    run = DistillRun.of(how, bench, subject, rows)
    with threads_to_train(subject.original.parameters):
        match how.setting:
            case "self":
                return (
                    with_itself(how, run)
                    if how.views == "two-views"
                    else over_generations(how, run)
                )
            case "black-box":
                return from_what_it_writes(how, run)
            case "online":
                return together(how, run)
            case _:
                teachers = [
                    subject.original.model,
                    *(further(name, bench).model for name in how.further),
                ]
                student = run.student(bench.recipe.seed)
                by_teachers(how, run, student.model, teachers)
                return student


def by_teachers(
    how: Distill,
    run: DistillRun,
    student: nn.Module,
    teachers: list[nn.Module],
    phase: str = "student",
) -> Study:
    """Train a student on fixed teachers, as most settings do."""
    tuition = Tuition.of(how, student, teachers, token_count(run.bench.folder))
    with ExitStack() as held:
        held.enter_context(tuition.going_on())
        if run.asks_beforehand(tuition):
            run = run.having_asked(tuition)
        held.enter_context(
            projections(tuition, run.lessons.held_out.some(slice(0, 2)), run.course.seed)
        )
        terms, adversary = tuition.terms(), None
        if how.setting == "adversarial":
            adversary = Discriminator.against(tuition, run.lessons.held_out, run.course)
            terms["discriminator"] = (how.adversarial_weight, adversary.not_deceived)
        return run.train(student, Blend(terms), phase, adversary)


def over_generations(how: Distill, run: DistillRun) -> Successor:
    """Each student teaches the next (born-again networks, Furlanello et al. 2018,
    arXiv:1805.04770). If the user stops it, the best is kept.
    """
    teacher, best, ended = run.subject.original.model, None, len(run.bench.ended_early)
    for number in range(1, how.generations + 1):
        latest = a_generation(how, run, teacher, number, finished=best is not None)
        best = (
            latest if latest and (best is None or latest.quality.at_least(best.quality)) else best
        )
        if len(run.bench.ended_early) > ended:
            run.bench.ended_early[-1] = best.kept_after(run.bench.ended_early[-1], number)
            latest = best
            break
        teacher = latest.student.model
    latest.student.model.requires_grad_(True)
    return latest.student


@dataclass(frozen=True)
class Generation:
    """A student that has learned, and where on its way it was best."""

    number: int
    student: Successor
    quality: Quality
    step: int

    def kept_after(self, end: EarlyEnd, number: int) -> GenerationsEnd:
        """End of a training that was stopped in generation ``number``, with this one as result."""
        return GenerationsEnd(
            end.step, end.steps, self.step, number, self.number, str(self.quality)
        )


def a_generation(
    how: Distill, run: DistillRun, teacher: nn.Module, number: int, finished: bool
) -> Generation | None:
    """Train one generation; None if it was stopped before its first step and a ``finished`` one
    exists.
    """
    student = run.student(run.course.seed + number - 1)
    try:
        study = by_teachers(how, run, student.model, [teacher], f"generation {number}")
    except Cancelled:
        if not finished:
            raise
        run.bench.ended_early.append(EarlyEnd(0, run.course.steps, 0))
        return None
    return Generation(number, student, study.best_quality, study.best_step)


def with_itself(how: Distill, run: DistillRun) -> Successor:
    """No teacher but its own second look."""
    student = run.student(run.course.seed)
    views = TwoViews(how, student.model, second_view(student.model, run.bench.folder))
    run.train(student.model, Blend(views.terms()))
    return student


def from_what_it_writes(how: Distill, run: DistillRun) -> Successor:
    """The student sees the teacher's words or choices, none of its probabilities."""
    teacher, bench = run.subject.original.model, run.bench
    student = run.student(bench.recipe.seed)
    if isinstance(bench.recipe.task, LanguageModeling):
        known = unshared_from(student.model, teacher, bench)
        lessons = written(how, bench, teacher, run.lessons, run.device, run.rows, known)
    else:
        lessons = answered(how, bench, teacher, run.lessons, run.device, run.rows)
    replace(run, lessons=lessons).train(student.model, Blend({"labels": (1.0, by_label)}))
    return student


def unshared_from(student: nn.Module, teacher: nn.Module, bench: Bench) -> int | None:
    """First token id that the student may not have, if the numbers of embeddings differ; otherwise
    None.
    """
    sizes = {model.config.get_text_config().vocab_size for model in (student, teacher)}
    return token_count(bench.folder) if len(sizes) > 1 else None


def together(how: Distill, run: DistillRun) -> Successor:
    """Deep mutual learning (Zhang et al. 2018, arXiv:1706.00384)."""
    student = run.student(run.course.seed)
    learning_together(how, run, student.model)
    return student


def further(name: str, bench: Bench) -> Opened:
    """Another teacher. Raises PlainError if it cannot teach together with the first one."""
    folder = resolve(name)
    refuse_stranger(folder, bench.folder, "teacher")
    return opened(folder, *compute_place(bench.recipe))


@refuse_unfit.register
def refuse_unfit_distill(how: Distill, recipe: Recipe) -> None:
    if how.setting == "black-box" and isinstance(recipe.task, MaskedLanguageModeling):
        raise PlainError(
            "A masked language model cannot generate text; choose another Setting (setting)."
        )


# --- before it is done ----------------------------------------------------------------------------


@outlined.register
def outlined_learning(how: Learning, subject: Subject) -> Opened:
    """The student without values: what will be written has its shapes."""
    student = student_of(how, subject, seed=0, valueless=True)
    # on no other device: an embedding that scales what it reads is known by the scale that it holds
    student.model.to(student.dtype)
    layers, plain = student.layers(), student.plain("meta")
    origin = origin_of_replacement(subject.original, layers, student.homes)
    return Opened(
        install(student.model, {}, torch.float32, "meta"),
        layers,
        plain,
        torch.device("meta"),
        recorded=origin,
    )


@compress.register
def compress_learning(how: Learning, weight: torch.Tensor, seen: None = None) -> Stored:
    """A look at one layer: the weight that a student begins with, since what it becomes takes
    training to find.
    """
    return Dense(tuple(weight.shape), weight)


@blueprint.register
def blueprint_learning(how: Learning, shape: tuple[int, int]) -> Stored:
    return Dense(
        shape,
        sketch(
            *shape, dtype=torch.float32 if how.values == "model" else getattr(torch, how.values)
        ),
    )
