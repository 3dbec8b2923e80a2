"""Distillation (Hinton et al. 2015, arXiv:1503.02531) and fine-tuning: a model is trained as a
whole and replaces the original.
"""

from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import nn

from engine.errors import Cancelled, PlainError, option_name
from engine.measurement.size import origin_of_replacement
from engine.models.loaded_model import LoadedModel, device_and_dtype, load_model
from engine.models.loading import resolve_model
from engine.models.packed_modules import install_packed_layers
from engine.recipe import Recipe
from engine.recipe.tasks import LanguageModeling, MaskedLanguageModeling, Training
from engine.runtime.threads import threads_to_train
from engine.step.early_end import EarlyEnd, GenerationsEnd
from engine.step.pruning_plan import TechniqueInput
from engine.step.replacement_model import ReplacementModel
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder
from engine.techniques.distillation.distill.adversarial import Discriminator
from engine.techniques.distillation.distill.compatibility import check_compatible
from engine.techniques.distillation.distill.config import Distill, FineTune
from engine.techniques.distillation.distill.distill_run import DistillRun
from engine.techniques.distillation.distill.distillation_loss import (
    DistillationLoss,
    attach_projections,
    batch_label_loss,
)
from engine.techniques.distillation.distill.mutual_learning import train_with_peer
from engine.techniques.distillation.distill.r_drop import TwoViews, second_view
from engine.techniques.distillation.distill.sequence_level import (
    teacher_generated_data,
    teacher_labeled_data,
)
from engine.techniques.distillation.distill.students import build_student
from engine.techniques.distillation.options import ModelTraining
from engine.techniques.hooks import (
    check_recipe,
    compress,
    meta_tensor,
    replacement_outline,
    storage_plan,
    train_replacement,
)
from engine.techniques.training.vocabulary import token_count
from engine.tensors.weights import DenseWeight, StoredWeight
from engine.training import Quality, Trainer, WeightedLoss


@train_replacement.register
def train_replacement_fine_tune(
    config: FineTune, context: RunContext, technique_input: TechniqueInput, tables: TableBuilder
) -> ReplacementModel:
    """Train on labels only."""
    if context.recipe.training and context.recipe.training.unlabelled:
        raise PlainError(
            "Fine-tuning uses labels only, so unlabeled examples have no effect; remove "
            f"{option_name(Training, 'unlabelled')}, or use distill."
        )
    run = DistillRun.of(config, context, technique_input, tables)
    student = run.prepare_student(context.recipe.seed)
    with threads_to_train(technique_input.original.parameters):
        run.train(student.model, WeightedLoss({"labels": (1.0, batch_label_loss)}))
    return student


@train_replacement.register
def train_replacement_distill(
    config: Distill, context: RunContext, technique_input: TechniqueInput, tables: TableBuilder
) -> ReplacementModel:
    run = DistillRun.of(config, context, technique_input, tables)
    with threads_to_train(technique_input.original.parameters):
        match config.setting:
            case "self":
                return (
                    train_two_views(config, run)
                    if config.views == "two-views"
                    else train_generations(config, run)
                )
            case "black-box":
                return train_black_box(config, run)
            case "online":
                return train_online(config, run)
            case _:
                teachers = [
                    technique_input.original.model,
                    *(
                        load_further_teacher(name, context).model
                        for name in config.further_teachers
                    ),
                ]
                student = run.prepare_student(context.recipe.seed)
                train_on_teachers(config, run, student.model, teachers)
                return student


def train_on_teachers(
    config: Distill,
    run: DistillRun,
    student: nn.Module,
    teachers: list[nn.Module],
    phase: str = "student",
) -> Trainer:
    """Train a student on fixed teachers, as most settings do."""
    distillation_loss = DistillationLoss.of(
        config, student, teachers, token_count(run.context.folder)
    )
    with ExitStack() as stack:
        stack.enter_context(distillation_loss.hooks())
        if run.precomputes_teacher_logits(distillation_loss):
            run = run.with_teacher_logits(distillation_loss)
        stack.enter_context(
            attach_projections(
                distillation_loss,
                run.training_data.held_out.subset(slice(0, 2)),
                run.training_config.seed,
            )
        )
        terms, adversary = distillation_loss.terms(), None
        if config.setting == "adversarial":
            adversary = Discriminator.for_student(
                distillation_loss, run.training_data.held_out, run.training_config
            )
            terms["discriminator"] = (config.adversarial_weight, adversary.adversarial_loss)
        return run.train(student, WeightedLoss(terms), phase, adversary)


def train_generations(config: Distill, run: DistillRun) -> ReplacementModel:
    """Train generations of students, each on the previous one (born-again networks, Furlanello et
    al. 2018, arXiv:1805.04770). If the user stops it, the best one is kept.
    """
    teacher, best, ended = run.technique_input.original.model, None, len(run.context.ended_early)
    for number in range(1, config.generations + 1):
        latest = train_generation(config, run, teacher, number, finished=best is not None)
        best = (
            latest
            if latest and (best is None or latest.quality.is_at_least(best.quality))
            else best
        )
        if len(run.context.ended_early) > ended:
            run.context.ended_early[-1] = best.kept_after(run.context.ended_early[-1], number)
            latest = best
            break
        teacher = latest.student.model
    latest.student.model.requires_grad_(True)
    return latest.student


@dataclass(frozen=True)
class Generation:
    """A trained student and its best step."""

    number: int
    student: ReplacementModel
    quality: Quality
    step: int

    def kept_after(self, end: EarlyEnd, number: int) -> GenerationsEnd:
        """End of a training that was stopped in generation ``number``, with this one as result."""
        return GenerationsEnd(
            end.step, end.steps, self.step, number, self.number, str(self.quality)
        )


def train_generation(
    config: Distill, run: DistillRun, teacher: nn.Module, number: int, finished: bool
) -> Generation | None:
    """Train one generation; None if it was stopped before its first step and a ``finished`` one
    exists.
    """
    student = run.prepare_student(run.training_config.seed + number - 1)
    try:
        trainer = train_on_teachers(config, run, student.model, [teacher], f"generation {number}")
    except Cancelled:
        if not finished:
            raise
        run.context.ended_early.append(EarlyEnd(0, run.training_config.steps, 0))
        return None
    return Generation(number, student, trainer.best_quality, trainer.best_step)


def train_two_views(config: Distill, run: DistillRun) -> ReplacementModel:
    """Train the student on its own second view instead of a teacher."""
    student = run.prepare_student(run.training_config.seed)
    views = TwoViews(config, student.model, second_view(student.model, run.context.folder))
    run.train(student.model, WeightedLoss(views.terms()))
    return student


def train_black_box(config: Distill, run: DistillRun) -> ReplacementModel:
    """Train the student on the teacher's texts or labels, without its probabilities."""
    teacher, context = run.technique_input.original.model, run.context
    student = run.prepare_student(context.recipe.seed)
    if isinstance(context.recipe.task, LanguageModeling):
        shared_tokens = first_unshared_token(student.model, teacher, context)
        training_data = teacher_generated_data(
            config, context, teacher, run.training_data, run.device, run.tables, shared_tokens
        )
    else:
        training_data = teacher_labeled_data(
            config, context, teacher, run.training_data, run.device, run.tables
        )
    replace(run, training_data=training_data).train(
        student.model, WeightedLoss({"labels": (1.0, batch_label_loss)})
    )
    return student


def first_unshared_token(student: nn.Module, teacher: nn.Module, context: RunContext) -> int | None:
    """First token id that the student may not have, if the numbers of embeddings differ; otherwise
    None.
    """
    sizes = {model.config.get_text_config().vocab_size for model in (student, teacher)}
    return token_count(context.folder) if len(sizes) > 1 else None


def train_online(config: Distill, run: DistillRun) -> ReplacementModel:
    """Train with deep mutual learning (Zhang et al. 2018, arXiv:1706.00384)."""
    student = run.prepare_student(run.training_config.seed)
    train_with_peer(config, run, student.model)
    return student


def load_further_teacher(name: str, context: RunContext) -> LoadedModel:
    """Load another teacher. Raises PlainError if it cannot be combined with the first one."""
    folder = resolve_model(name)
    check_compatible(folder, context.folder, "teacher")
    return load_model(folder, *device_and_dtype(context.recipe))


@check_recipe.register
def check_recipe_distill(config: Distill, recipe: Recipe) -> None:
    if config.setting == "black-box" and isinstance(recipe.task, MaskedLanguageModeling):
        raise PlainError(
            "A masked language model cannot generate text; choose another "
            f"{option_name(config, 'setting')}."
        )


# --- before it is done ----------------------------------------------------------------------------


@replacement_outline.register
def replacement_outline_model_training(
    config: ModelTraining, technique_input: TechniqueInput
) -> LoadedModel:
    """The student on the meta device; the saved model has its shapes."""
    student = build_student(config, technique_input, seed=0, on_meta=True)
    # on the CPU: an embedding that scales its rows is recognized by the scale that it stores
    student.model.to(student.dtype)
    layers, plain = student.layers(), student.plain("meta")
    origin = origin_of_replacement(technique_input.original, layers, student.source_layers)
    return LoadedModel(
        install_packed_layers(student.model, {}, torch.float32, "meta"),
        layers,
        plain,
        torch.device("meta"),
        recorded_origin=origin,
    )


@compress.register
def compress_model_training(
    config: ModelTraining, weight: torch.Tensor, stats: None = None
) -> StoredWeight:
    """Initial weight of the student's layer; the trained weight is not known before a run."""
    return DenseWeight(tuple(weight.shape), weight)


@storage_plan.register
def storage_plan_model_training(config: ModelTraining, shape: tuple[int, int]) -> StoredWeight:
    return DenseWeight(
        shape,
        meta_tensor(
            *shape,
            dtype=torch.float32 if config.values == "model" else getattr(torch, config.values),
        ),
    )
