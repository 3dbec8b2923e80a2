"""Students before they have learned: of every other block, with fewer heads, narrower, of the
teacher's shape, or another model altogether.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from engine.calibration.stream import block_sequences
from engine.errors import PlainError
from engine.evaluation.data.tokens import tokenizer_key
from engine.models.layers import layers_of, text_reader
from engine.models.loaded_model import LoadedModel
from engine.models.loading import (
    ModelSource,
    changed_config,
    config_of,
    load_pretrained,
    meta_model,
    model_class,
    prepare_for_inference,
    resolve_model,
    tokenizer_of,
)
from engine.models.positions import usable_length
from engine.models.shapes import fit_shapes
from engine.recipe import Recipe
from engine.recipe.model_names import ModelName
from engine.step.pruning_plan import PruningPlan, TechniqueInput
from engine.step.replacement_model import ReplacementModel
from engine.techniques.distillation.distill.config import (
    SAME,
    SMALLER,
    Distill,
    FineTune,
    ModelTraining,
)
from engine.techniques.hooks import check_models, plan_removal
from engine.techniques.pruning.blocks.method import (
    BY_NUMBER,
    check_expert_layout,
    expert_fields,
    per_block_lists,
)
from engine.techniques.pruning.structured.config import Structured
from engine.techniques.pruning.tracing import pruned_model_error
from engine.tensors.weights import DenseWeight
from engine.training.trainable_model import as_module_weight, unshare_tensors

# what families call the width inside a feed-forward part; GPT-2's may be left to follow
INNER_WIDTH_FIELDS = ("intermediate_size", "ffn_dim", "n_inner")
LANGUAGE = ("language-modeling", "masked-language-modeling")
# inner width of an expert
EXPERT_WIDTH_FIELDS = (
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
)
RANDOM, OTHER = "it began with random weights", "of another model than the teacher"


def build_student(
    config: ModelTraining, technique_input: TechniqueInput, seed: int, on_meta: bool = False
) -> ReplacementModel:
    """Student in float32 on the CPU, or without values on the meta device for a forecast. Raises
    PlainError if it is not possible.
    """
    if isinstance(config, Distill) and config.setting == "several" and not config.further_teachers:
        raise PlainError(
            "The setting several has no further teachers; name them under teachers, "
            "separated by commas."
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


def student_dtype(config: ModelTraining, folder: ModelSource) -> torch.dtype:
    return getattr(torch, folder.dtype if config.values == "model" else config.values)


# --- of the teacher's parts -----------------------------------------------------------------------


def student_from_teacher(
    config: ModelTraining,
    technique_input: TechniqueInput,
    pruning_plan: PruningPlan,
    start: str,
    seed: int,
    on_meta: bool,
) -> ReplacementModel:
    """Model that ``small`` leaves of the subject, with its weights or random ones of the same
    shapes.
    """
    source = (
        technique_input.original
        if start == "teacher" or on_meta
        else random_original(technique_input, seed)
    )
    model, homes = pruned_copy(source, technique_input.folder, pruning_plan, on_meta)
    begun = {} if start == "random" else homes
    return ReplacementModel(
        model,
        technique_input.folder,
        student_dtype(config, technique_input.folder),
        pruning_plan,
        homes=begun,
        initial_weights_note=RANDOM,
    )


def pruned_copy(
    source: LoadedModel, folder: ModelSource, pruning_plan: PruningPlan, on_meta: bool
) -> tuple[nn.Module, dict[str, str]]:
    """A model of the layers that stay; and by each one's name, the one it had."""
    stays = [
        (layer, after) for layer, after in pruning_plan.layers(source.layers) if not layer.tied_to
    ]
    stored_before = {
        layer.name: source.model.get_submodule(layer.name).stored for layer, _ in stays
    }
    stored = {
        after.name: pruning_plan.planned_weight(layer, stored_before[layer.name])
        for layer, after in stays
    }
    plain = pruning_plan.plain(source.plain)
    model = fit_shapes(
        meta_model(folder, changed_config(folder, pruning_plan.config)), stored, plain
    )
    if not on_meta:
        weights = {
            after.name: pruning_plan.stored_weight(layer, stored_before[layer.name]).to_dense(
                torch.float32
            )
            for layer, after in stays
        }
        in_shape = {
            f"{name}.weight": as_module_weight(model.get_submodule(name), weight)
            for name, weight in weights.items()
        }
        model.load_state_dict(plain | in_shape, strict=False, assign=True)
        model.tie_weights()
        model = unshare_tensors(model, torch.device("cpu"))
    return model, {after.name: layer.name for layer, after in stays}


def smaller_student_plan(config: Distill, technique_input: TechniqueInput) -> PruningPlan:
    """Evenly spaced blocks, and in each the heads of the largest weights."""
    stacks = block_stacks(technique_input)
    small = fewer_blocks_plan(stacks, config.blocks, technique_input)
    if config.heads == 1:
        return small
    if any(layer.kind == "conv2d" and layer.block for layer in technique_input.original.layers):
        raise PlainError(
            f"{technique_input.folder} is made of convolutions and has no heads; set heads to 1, "
            "and "
            "keep fewer blocks or less width."
        )
    everywhere = replace(
        technique_input, targets=frozenset(layer.name for layer in technique_input.original.layers)
    )
    heads = plan_removal(Structured(what="heads", share=1 - config.heads, score="l2"), everywhere)
    cuts = {name: cut for name, cut in heads.kept_indices.items() if not small.removes(name)}
    return replace(
        small,
        kept_indices=cuts,
        replaced_tensors=heads.replaced_tensors,
        uniform=heads.uniform,
        notes=heads.notes,
    )


def block_stacks(technique_input: TechniqueInput) -> list[list[str]]:
    """Lists of consecutive blocks. Raises PlainError if no block can be removed."""
    rows = block_sequences(technique_input.original.model)
    if (
        not all(rows)
        or not rows
        or getattr(technique_input.original.model.config.get_text_config(), BY_NUMBER, False)
    ):
        raise PlainError(
            f"{technique_input.folder} has no row of blocks of which some could be left out; "
            "choose "
            "another student."
        )
    return rows


def fewer_blocks_plan(
    stacks: list[list[str]], share: float, technique_input: TechniqueInput
) -> PruningPlan:
    """Model with evenly spaced blocks of each list, including the first."""
    kept = [
        evenly_spaced_blocks(
            row,
            share,
            {layer.block for layer in technique_input.original.layers if not layer.reads_text},
        )
        for row in stacks
    ]
    moved = {
        block: f"{block.rpartition('.')[0]}.{number}"
        for row in kept
        for number, block in enumerate(row)
    }
    dropped = tuple(
        block
        for row, kept_blocks in zip(stacks, kept, strict=True)
        for block in row
        if block not in kept_blocks
    )
    small = (
        PruningPlan(
            removed_blocks=dropped,
            new_block_names=moved,
            config=block_count_fields(kept, stacks, technique_input),
        )
        if dropped
        else PruningPlan()
    )
    check_expert_layout(small, technique_input)
    if small.removed_blocks and (failure := pruned_model_error(technique_input, small)):
        raise PlainError(
            f"A student of {len(kept[0])} of the {len(stacks[0])} blocks of "
            f"{technique_input.folder} "
            "cannot be made, since its parts depend on all of them "
            f"({failure[:120]}); set blocks to 1, or choose another student."
        )
    return small


def evenly_spaced_blocks(row: list[str], share: float, image_blocks: set[str]) -> list[str]:
    """A share of the blocks, evenly spaced, and those that no text reaches."""
    free = [block for block in row if block not in image_blocks]
    count = max(1, round(share * len(free)))
    kept = {free[number * len(free) // count] for number in range(count)}
    return [block for block in row if block in kept or block in image_blocks]


def block_count_fields(
    kept: list[list[str]], stacks: list[list[str]], technique_input: TechniqueInput
) -> dict[str, Any]:
    """Fields of the configuration that count blocks, or say something of each."""
    fields = technique_input.original.model.config.get_text_config().to_dict()
    if "depths" in fields:
        return {"depths": [len(row) for row in kept]}
    left = [stacks[0].index(block) for block in kept[0]]
    lists = per_block_lists(fields, len(stacks[0]))
    return (
        {"num_hidden_layers": len(left)}
        | {name: [value[number] for number in left] for name, value in lists.items()}
        | expert_fields(fields, left)
    )


def random_original(technique_input: TechniqueInput, seed: int) -> LoadedModel:
    """The subject with weights as its architecture draws them; what reads images or sound keeps its
    own.
    """
    model, original = (
        random_model(technique_input.original.model.config, technique_input.folder, seed),
        technique_input.original,
    )
    layers, reads_text = layers_of(model), text_reader(model)
    state, weights = model.state_dict(), {f"{layer.name}.weight" for layer in layers}
    for layer in layers:
        module = model.get_submodule(layer.name)
        own = DenseWeight(
            layer.matrix_shape,
            module.weight.detach().T
            if layer.kind == "conv1d"
            else module.weight.detach().flatten(1),
        )
        module.stored = own if layer.reads_text else original.model.get_submodule(layer.name).stored
    plain = {
        name: value if reads_text(name) else original.plain.get(name, value)
        for name, value in state.items()
        if name not in weights
    }
    return LoadedModel(model, layers, plain, torch.device("cpu"))


# --- of a configuration alone ---------------------------------------------------------------------


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


def config_fields(
    config: PreTrainedConfig, folder: ModelSource, dtype: torch.dtype
) -> dict[str, Any]:
    """Fields of config.json."""
    return config.to_dict() | {
        "architectures": [folder.architecture],
        "dtype": str(dtype).removeprefix("torch."),
    }


def width_fields(config: PreTrainedConfig, share: float, folder: ModelSource) -> dict[str, Any]:
    """Fields that say how wide a model is; heads stay as wide as they were, so there are fewer.
    Raises PlainError where they are not known.
    """
    if folder.multimodal:
        raise PlainError(
            f"{folder} reads images or sound too, for a language model of this width; set "
            "width to 1, and keep fewer blocks or heads."
        )
    fields = config.get_text_config().to_dict()
    if "hidden_sizes" in fields and "embedding_size" in fields:
        return {
            "hidden_sizes": [scaled_size(size, share) for size in fields["hidden_sizes"]],
            "embedding_size": scaled_size(fields["embedding_size"], share),
        }
    heads, hidden = getattr(config, "num_attention_heads", 0), getattr(config, "hidden_size", 0)
    inner = next((name for name in INNER_WIDTH_FIELDS if name in fields), None)
    if not (heads and hidden and inner):
        raise PlainError(
            f"How wide {folder} is cannot be changed by its config.json here "
            f"({folder.architecture}); set width to 1."
        )
    groups = fields.get("num_key_value_heads") or heads
    left = max(1, round(share * groups)) * (heads // groups)
    narrow = {
        "num_attention_heads": left,
        "hidden_size": hidden * left // heads,
        inner: fields[inner] and scaled_size(fields[inner], share),
    }
    embedded = fields.get("word_embed_proj_dim")  # OPT's tokens may be narrower than what flows on
    narrow |= {
        name: scaled_size(fields[name], share) for name in EXPERT_WIDTH_FIELDS if fields.get(name)
    }
    narrow |= {"word_embed_proj_dim": embedded * left // heads} if embedded else {}
    return narrow | (
        {"num_key_value_heads": left * groups // heads} if "num_key_value_heads" in fields else {}
    )


def scaled_size(size: int, share: float) -> int:
    """Scaled size, rounded to a multiple of four for efficient kernels."""
    return max(4, 4 * round(share * size / 4))


def random_model(config: PreTrainedConfig, folder: ModelSource, seed: int) -> nn.Module:
    """Random weights as the architecture draws them, in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return prepare_for_inference(
            model_class(folder).from_config(config, dtype=torch.float32, trust_remote_code=False)
        )


# --- another model --------------------------------------------------------------------------------


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
        folder.bare or config.student_blocks or config.student_heads,
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


def student_config_fields(
    config: Distill, folder: ModelSource, teacher: ModelSource
) -> dict[str, Any]:
    """Fields of the student's configuration that differ from its file's."""
    heads = (
        {"num_attention_heads": checked_head_count(config.student_heads, folder)}
        if config.student_heads
        else {}
    )
    names = (
        {name: getattr(config_of(teacher), name) for name in ("id2label", "label2id")}
        if folder.bare
        else {}
    )
    return (
        (first_blocks_fields(config.student_blocks, folder) if config.student_blocks else {})
        | heads
        | names
    )


def first_blocks_fields(count: int, folder: ModelSource) -> dict[str, Any]:
    """Fields that count blocks, or say something of each. Raises PlainError where there are not as
    many.
    """
    config = config_of(folder).get_text_config()
    there = getattr(config, "num_hidden_layers", 0)
    if count > there:
        raise PlainError(
            f"The student {folder} has {there} blocks, fewer than the {count} of "
            f"student_blocks; set it to {there} at most."
        )
    fields = config.to_dict()
    lists = {name: value[:count] for name, value in per_block_lists(fields, there).items()}
    return {"num_hidden_layers": count} | lists | expert_fields(fields, list(range(count)))


def checked_head_count(heads: int, folder: ModelSource) -> int:
    """A number of heads that its width can be cut into. Raises PlainError for any other."""
    config = config_of(folder).get_text_config()
    width, groups = getattr(config, "hidden_size", 0), getattr(config, "num_key_value_heads", None)
    if not isinstance(width, int) or groups or not width or width % heads:
        why = (
            "heads that share keys and values"
            if groups
            else f"a width of {width}, which {heads} heads do not divide"
            if width
            else "no heads"
        )
        raise PlainError(
            f"The student {folder} has {why}; set student_heads to 0, or to a divisor of its width."
        )
    return heads


@check_models.register
def check_models_distill(
    config: Distill, teacher: ModelSource, recipe: Recipe, at_hand: bool
) -> None:
    """Refuse students that this model cannot train and teachers that cannot train it together with
    this one.
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
    lengths = {"task.length": getattr(recipe.task, "length", 0)}
    if folder.kind in LANGUAGE:
        context = recipe.calibration.context if recipe.calibration else 0  # of the training windows
        lengths = {
            "task.context": recipe.task.context if role == "student" else 0,
            "calibration.context": context,
        }
    limit = usable_length(config_of(folder)) if folder.kind != "image-classification" else None
    for option, length in lengths.items():
        if limit and length > limit:
            raise PlainError(
                f"The {role} {folder} reads at most {limit:,} tokens, and {option} is "
                f"{length:,}; set it to at most {limit:,}."
            )


def check_compatible(folder: ModelSource, teacher: ModelSource, role: str) -> None:
    """Raises PlainError where two models cannot learn from one another: another task, vocabulary,
    or other classes.
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
            f"The {role} {folder} cuts text into other tokens than {teacher}, so their answers "
            f"cannot be compared; choose a {role} with the same "
            f"vocabulary."
        )
    config, teacher_config = (config_of(each) for each in (folder, teacher))
    if folder.kind in LANGUAGE or folder.bare:
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
