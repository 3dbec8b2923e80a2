"""Checks that two models can be trained together: their task, tokens, classes and text lengths."""

from transformers import PreTrainedConfig

from engine.errors import PlainError, option_name
from engine.evaluation.data.tokens import tokenizer_key
from engine.models.loading import (
    ModelSource,
    config_of,
    resolve_model,
    tokenizer_of,
)
from engine.models.positions import usable_length
from engine.recipe import Recipe
from engine.recipe.model_names import ModelName
from engine.recipe.tasks import Calibration, LanguageModeling, TextClassification
from engine.techniques.distillation.distill.config import (
    Distill,
)
from engine.techniques.distillation.distill.student_config import student_config_fields
from engine.techniques.hooks import check_models

LANGUAGE = ("language-modeling", "masked-language-modeling")


@check_models.register
def check_models_distill(
    config: Distill, teacher: ModelSource, recipe: Recipe, at_hand: bool
) -> None:
    """Check the student and teachers of a step.

    Raises PlainError for a student that this model cannot train, or a teacher that cannot train it
    together with this model.
    """
    for name in config.models:
        if at_hand and ModelName.parse(name).kind == "hub":
            continue
        student = name == getattr(config, "student", "")
        role, folder = (
            "student" if student else "teacher",
            resolve_model(name, head_for=teacher.kind if student else None),
        )
        check_compatible(folder, teacher, role)
        check_lengths(folder, role, recipe)
        if student:
            student_config_fields(config, folder, teacher)


def check_lengths(folder: ModelSource, role: str, recipe: Recipe) -> None:
    """Check that student and teacher can read texts as long as the recipe's.

    Raises PlainError if one cannot.
    """
    lengths = {option_name(TextClassification, "length"): getattr(recipe.task, "length", 0)}
    if folder.kind in LANGUAGE:
        context = recipe.calibration.context if recipe.calibration else 0  # of the training windows
        lengths = {
            option_name(LanguageModeling, "context"): recipe.task.context
            if role == "student"
            else 0,
            option_name(Calibration, "context"): context,
        }
    limit = usable_length(config_of(folder)) if folder.kind != "image-classification" else None
    for option, length in lengths.items():
        if limit and length > limit:
            raise PlainError(
                f"The {role} {folder} reads at most {limit:,} tokens, and {option} is "
                f"{length:,}; set it to at most {limit:,}."
            )


def check_compatible(folder: ModelSource, teacher: ModelSource, role: str) -> None:
    """Check that teacher and student can be compared.

    Raises PlainError if one model cannot be trained on the other's outputs because of another task,
    vocabulary or other classes.
    """
    if folder.kind != teacher.kind:
        raise PlainError(
            f"The {role} {folder} is made for {folder.kind} and {teacher} for "
            f"{teacher.kind}; choose a {role} for the same task."
        )
    if folder.packed:
        raise PlainError(
            f"The {role} {folder} is compressed already; choose a model in 16 or 32 bits."
        )
    if folder.kind != "image-classification" and tokenizer_key(
        tokenizer_of(folder)
    ) != tokenizer_key(tokenizer_of(teacher)):
        raise PlainError(
            f"The {role} {folder} tokenizes text differently from {teacher}, so their predictions "
            f"cannot be compared; choose a {role} with the same vocabulary."
        )
    config, teacher_config = (config_of(each) for each in (folder, teacher))
    if folder.kind in LANGUAGE or folder.without_head:
        return
    if class_names(config) != class_names(teacher_config):
        raise PlainError(
            f"The {role} {folder} knows the classes {class_list(config)} and {teacher} "
            f"{class_list(teacher_config)}; "
            f"choose a {role} with the same classes in the same order."
        )


def class_names(config: PreTrainedConfig) -> list[str]:
    return [str(config.id2label[number]).strip().lower() for number in sorted(config.id2label)]


def class_list(config: PreTrainedConfig, max_names: int = 6) -> str:
    names = class_names(config)
    return ", ".join(names[:max_names]) + (
        f" and {len(names) - max_names} more" if len(names) > max_names else ""
    )
