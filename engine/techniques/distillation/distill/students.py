"""Students before training: a copy of the teacher, a smaller one made of its blocks, a narrower one
of the same architecture, or another model.
"""

import torch
from torch import nn
from transformers import PreTrainedConfig

from engine.errors import PlainError, option_name
from engine.models.loading import (
    ModelSource,
    changed_config,
    load_pretrained,
    meta_model,
    resolve_model,
)
from engine.step.pruning_plan import PruningPlan, TechniqueInput
from engine.step.replacement_model import ReplacementModel
from engine.techniques.distillation.distill.compatibility import check_compatible
from engine.techniques.distillation.distill.config import (
    SAME,
    SMALLER,
    Distill,
    FineTune,
    ModelTraining,
)
from engine.techniques.distillation.distill.pruned_student import (
    RANDOM,
    block_stacks,
    fewer_blocks_plan,
    random_model,
    smaller_student_plan,
    student_from_teacher,
)
from engine.techniques.distillation.distill.student_config import (
    config_fields,
    student_config_fields,
    student_dtype,
    width_fields,
)
from engine.training.trainable_model import unshare_tensors

OTHER = "of another model than the teacher"


def build_student(
    config: ModelTraining, technique_input: TechniqueInput, seed: int, on_meta: bool = False
) -> ReplacementModel:
    """Student in float32 on the CPU, or without values on the meta device for a forecast. Raises
    PlainError if it is not possible.
    """
    if isinstance(config, Distill) and config.setting == "several" and not config.further_teachers:
        raise PlainError(
            "The setting several has no further teachers; name them under "
            f"{option_name(config, 'teachers')}, separated by commas."
        )
    match config:
        case FineTune():
            return student_from_teacher(
                config, technique_input, PruningPlan(), "teacher", seed, on_meta
            )
        case Distill(student=name) if name not in (SMALLER, SAME):
            return student_from_file(config, technique_input, seed, on_meta)
        case Distill(student=name, width=width) if name == SMALLER and width < 1:
            return narrower_student(config, technique_input, seed, on_meta)
        case Distill():
            return student_from_teacher(
                config,
                technique_input,
                smaller_student_plan(config, technique_input)
                if config.student == SMALLER
                else PruningPlan(),
                config.start,
                seed,
                on_meta,
            )
    raise TypeError(f"{type(config).__name__} has no student")


def narrower_student(
    config: Distill, technique_input: TechniqueInput, seed: int, on_meta: bool
) -> ReplacementModel:
    """Model of the same family with smaller sizes and fewer blocks, by its configuration."""
    fields = fewer_blocks_plan(
        block_stacks(technique_input), config.blocks, technique_input
    ).config | width_fields(
        technique_input.original.model.config, config.width, technique_input.folder
    )
    model_config = changed_config(technique_input.folder, fields)
    model = (
        meta_model(technique_input.folder, model_config)
        if on_meta
        else random_model(model_config, technique_input.folder, seed)
    )
    dtype = student_dtype(config, technique_input.folder)
    return ReplacementModel(
        model,
        technique_input.folder,
        dtype,
        config=config_fields(model_config, technique_input.folder, dtype),
        initial_weights_note=RANDOM,
    )


def student_from_file(
    config: Distill, technique_input: TechniqueInput, seed: int, on_meta: bool
) -> ReplacementModel:
    """Student from a file, possibly with fewer blocks or other heads; an encoder without a head
    gets one for the teacher's classes.
    """
    folder = resolve_model(config.student, head_for=technique_input.folder.kind)
    check_compatible(folder, technique_input.folder, "student")
    model_config = changed_config(
        folder, student_config_fields(config, folder, technique_input.folder)
    )
    dtype, changed = (
        student_dtype(config, folder),
        folder.without_head or config.student_blocks or config.student_heads,
    )
    model = (
        meta_model(folder, model_config) if on_meta else load_student(folder, model_config, seed)
    )
    return ReplacementModel(
        model,
        folder,
        dtype,
        config=config_fields(model_config, folder, dtype) if changed else {},
        initial_weights_note=OTHER,
    )


def load_student(folder: ModelSource, config: PreTrainedConfig, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return unshare_tensors(load_pretrained(folder, config), torch.device("cpu"))
