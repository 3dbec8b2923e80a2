"""Students before they have learned: of every other block, with fewer heads, narrower, of the
teacher's shape, or another model altogether.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from engine.calibration.stream import rows_of_blocks
from engine.errors import PlainError
from engine.evaluation.data.tokens import tokenizer_key
from engine.models.layers import layers_of, text_reader
from engine.models.loaded_model import Opened
from engine.models.loading import (
    Folder,
    at_rest,
    changed_config,
    class_for,
    config_of,
    load,
    resolve,
    skeleton,
    tokenizer_of,
)
from engine.models.positions import usable_length
from engine.models.shapes import fit
from engine.recipe import Recipe
from engine.recipe.model_names import ModelName
from engine.step.pruning_plan import Rebuilt, Subject
from engine.step.replacement_model import Successor
from engine.techniques.distillation.distill.config import SAME, SMALLER, Distill, FineTune, Learning
from engine.techniques.hooks import check_models, rebuild
from engine.techniques.pruning.blocks.method import (
    BY_NUMBER,
    lists_by_block,
    of_experts,
    refuse_unlike,
)
from engine.techniques.pruning.structured.config import Structured
from engine.techniques.pruning.tracing import failure_without
from engine.tensors.weights import Dense
from engine.training.trainable_model import in_place, unshared

# what families call the width inside a feed-forward part; GPT-2's may be left to follow
INNER = ("intermediate_size", "ffn_dim", "n_inner")
LANGUAGE = ("language-modeling", "masked-language-modeling")
# inner width of an expert
OF_EXPERTS = (
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
)
RANDOM, OTHER = "it began with random weights", "of another model than the teacher"


def student_of(how: Learning, subject: Subject, seed: int, valueless: bool = False) -> Successor:
    """Student in float32 on the CPU, or without values on the meta device for a forecast. Raises
    PlainError if it is not possible.
    """
    if isinstance(how, Distill) and how.setting == "several" and not how.further:
        raise PlainError(
            "The setting several has no further teachers; name them under teachers, "
            "separated by commas."
        )
    match how:
        case FineTune():
            return of_the_subject(how, subject, Rebuilt(), "teacher", seed, valueless)
        case Distill(student=name) if name not in (SMALLER, SAME):
            return another(how, subject, seed, valueless)
        case Distill(student=name, width=width) if name == SMALLER and width < 1:
            return narrower(how, subject, seed, valueless)
        case Distill():
            return of_the_subject(
                how,
                subject,
                kept_of(how, subject) if how.student == SMALLER else Rebuilt(),
                how.start,
                seed,
                valueless,
            )
    raise TypeError(f"{type(how).__name__} has no student")


def written_in(how: Learning, folder: Folder) -> torch.dtype:
    return getattr(torch, folder.dtype if how.values == "model" else how.values)


# --- of the teacher's parts -----------------------------------------------------------------------


def of_the_subject(
    how: Learning, subject: Subject, small: Rebuilt, start: str, seed: int, valueless: bool
) -> Successor:
    """Model that ``small`` leaves of the subject, with its weights or random ones of the same
    shapes.
    """
    source = subject.original if start == "teacher" or valueless else random_twin(subject, seed)
    model, homes = left_of(source, subject.folder, small, valueless)
    begun = {} if start == "random" else homes
    return Successor(
        model, subject.folder, written_in(how, subject.folder), small, homes=begun, begins=RANDOM
    )


def left_of(
    source: Opened, folder: Folder, small: Rebuilt, valueless: bool
) -> tuple[nn.Module, dict[str, str]]:
    """A model of the layers that stay; and by each one's name, the one it had."""
    stays = [(layer, after) for layer, after in small.layers(source.layers) if not layer.tied_to]
    held = {layer.name: source.model.get_submodule(layer.name).stored for layer, _ in stays}
    stored = {after.name: small.sketch(layer, held[layer.name]) for layer, after in stays}
    plain = small.plain(source.plain)
    model = fit(skeleton(folder, changed_config(folder, small.config)), stored, plain)
    if not valueless:
        weights = {
            after.name: small.stored(layer, held[layer.name]).dense(torch.float32)
            for layer, after in stays
        }
        in_shape = {
            f"{name}.weight": in_place(model.get_submodule(name), weight)
            for name, weight in weights.items()
        }
        model.load_state_dict(plain | in_shape, strict=False, assign=True)
        model.tie_weights()
        model = unshared(model, torch.device("cpu"))
    return model, {after.name: layer.name for layer, after in stays}


def kept_of(how: Distill, subject: Subject) -> Rebuilt:
    """Evenly spaced blocks, and in each the heads of the largest weights."""
    stacks = stacks_of(subject)
    small = fewer_blocks(stacks, how.blocks, subject)
    if how.heads == 1:
        return small
    if any(layer.kind == "conv2d" and layer.block for layer in subject.original.layers):
        raise PlainError(
            f"{subject.folder} is made of convolutions and has no heads; set heads to 1, and "
            "keep fewer blocks or less width."
        )
    everywhere = replace(
        subject, targets=frozenset(layer.name for layer in subject.original.layers)
    )
    heads = rebuild(Structured(what="heads", share=1 - how.heads, score="l2"), everywhere)
    cuts = {name: cut for name, cut in heads.cuts.items() if not small.drops(name)}
    return replace(
        small, cuts=cuts, set_tensors=heads.set_tensors, uniform=heads.uniform, notes=heads.notes
    )


def stacks_of(subject: Subject) -> list[list[str]]:
    """Lists of consecutive blocks. Raises PlainError if no block can be removed."""
    rows = rows_of_blocks(subject.original.model)
    if (
        not all(rows)
        or not rows
        or getattr(subject.original.model.config.get_text_config(), BY_NUMBER, False)
    ):
        raise PlainError(
            f"{subject.folder} has no row of blocks of which some could be left out; choose "
            "another student."
        )
    return rows


def fewer_blocks(stacks: list[list[str]], share: float, subject: Subject) -> Rebuilt:
    """Model with evenly spaced blocks of each list, including the first."""
    kept = [
        evenly(
            row, share, {layer.block for layer in subject.original.layers if not layer.reads_text}
        )
        for row in stacks
    ]
    moved = {
        block: f"{block.rpartition('.')[0]}.{number}"
        for row in kept
        for number, block in enumerate(row)
    }
    dropped = tuple(
        block for row, mine in zip(stacks, kept, strict=True) for block in row if block not in mine
    )
    small = (
        Rebuilt(dropped=dropped, moved=moved, config=counting(kept, stacks, subject))
        if dropped
        else Rebuilt()
    )
    refuse_unlike(small, subject)
    if small.dropped and (failure := failure_without(subject, small)):
        raise PlainError(
            f"A student of {len(kept[0])} of the {len(stacks[0])} blocks of {subject.folder} "
            "cannot be made, since its parts depend on all of them "
            f"({failure[:120]}); set blocks to 1, or choose another student."
        )
    return small


def evenly(row: list[str], share: float, of_images: set[str]) -> list[str]:
    """A share of the blocks, evenly spaced, and those that no text reaches."""
    free = [block for block in row if block not in of_images]
    count = max(1, round(share * len(free)))
    kept = {free[number * len(free) // count] for number in range(count)}
    return [block for block in row if block in kept or block in of_images]


def counting(kept: list[list[str]], stacks: list[list[str]], subject: Subject) -> dict[str, Any]:
    """Fields of the configuration that count blocks, or say something of each."""
    fields = subject.original.model.config.get_text_config().to_dict()
    if "depths" in fields:
        return {"depths": [len(row) for row in kept]}
    left = [stacks[0].index(block) for block in kept[0]]
    lists = lists_by_block(fields, len(stacks[0]))
    return (
        {"num_hidden_layers": len(left)}
        | {name: [value[number] for number in left] for name, value in lists.items()}
        | of_experts(fields, left)
    )


def random_twin(subject: Subject, seed: int) -> Opened:
    """The subject with weights as its architecture draws them; what reads images or sound keeps its
    own.
    """
    model, original = drawn(subject.original.model.config, subject.folder, seed), subject.original
    layers, reads_text = layers_of(model), text_reader(model)
    state, weights = model.state_dict(), {f"{layer.name}.weight" for layer in layers}
    for layer in layers:
        module = model.get_submodule(layer.name)
        own = Dense(
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
    return Opened(model, layers, plain, torch.device("cpu"))


# --- of a configuration alone ---------------------------------------------------------------------


def narrower(how: Distill, subject: Subject, seed: int, valueless: bool) -> Successor:
    """Model of the same family with smaller sizes and fewer blocks, by its configuration."""
    fields = fewer_blocks(stacks_of(subject), how.blocks, subject).config | widths(
        subject.original.model.config, how.width, subject.folder
    )
    model_config = changed_config(subject.folder, fields)
    model = (
        skeleton(subject.folder, model_config)
        if valueless
        else drawn(model_config, subject.folder, seed)
    )
    dtype = written_in(how, subject.folder)
    return Successor(
        model,
        subject.folder,
        dtype,
        config=dict_of(model_config, subject.folder, dtype),
        begins=RANDOM,
    )


def dict_of(config: PreTrainedConfig, folder: Folder, dtype: torch.dtype) -> dict[str, Any]:
    """Fields of config.json."""
    return config.to_dict() | {
        "architectures": [folder.architecture],
        "dtype": str(dtype).removeprefix("torch."),
    }


def widths(config: PreTrainedConfig, share: float, folder: Folder) -> dict[str, Any]:
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
            "hidden_sizes": [shrunk(size, share) for size in fields["hidden_sizes"]],
            "embedding_size": shrunk(fields["embedding_size"], share),
        }
    heads, hidden = getattr(config, "num_attention_heads", 0), getattr(config, "hidden_size", 0)
    inner = next((name for name in INNER if name in fields), None)
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
        inner: fields[inner] and shrunk(fields[inner], share),
    }
    embedded = fields.get("word_embed_proj_dim")  # OPT's tokens may be narrower than what flows on
    narrow |= {name: shrunk(fields[name], share) for name in OF_EXPERTS if fields.get(name)}
    narrow |= {"word_embed_proj_dim": embedded * left // heads} if embedded else {}
    return narrow | (
        {"num_key_value_heads": left * groups // heads} if "num_key_value_heads" in fields else {}
    )


def shrunk(size: int, share: float) -> int:
    """Scaled size, rounded to a multiple of four for efficient kernels."""
    return max(4, 4 * round(share * size / 4))


def drawn(config: PreTrainedConfig, folder: Folder, seed: int) -> nn.Module:
    """Random weights as the architecture draws them, in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return at_rest(
            class_for(folder).from_config(config, dtype=torch.float32, trust_remote_code=False)
        )


# --- another model --------------------------------------------------------------------------------


def another(how: Distill, subject: Subject, seed: int, valueless: bool) -> Successor:
    """Student from a file, possibly with fewer blocks or other heads; an encoder without a head
    gets one for the teacher's classes.
    """
    folder = resolve(how.student, head_for=subject.folder.kind)
    refuse_stranger(folder, subject.folder, "student")
    model_config = changed_config(folder, fields_of(how, folder, subject.folder))
    dtype, changed = written_in(how, folder), folder.bare or how.student_blocks or how.student_heads
    model = skeleton(folder, model_config) if valueless else begun(folder, model_config, seed)
    return Successor(
        model,
        folder,
        dtype,
        config=dict_of(model_config, folder, dtype) if changed else {},
        begins=OTHER,
    )


def begun(folder: Folder, config: PreTrainedConfig, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return unshared(load(folder, config), torch.device("cpu"))


def fields_of(how: Distill, folder: Folder, teacher: Folder) -> dict[str, Any]:
    """Fields of the student's configuration that differ from its file's."""
    heads = (
        {"num_attention_heads": dividing(how.student_heads, folder)} if how.student_heads else {}
    )
    names = (
        {name: getattr(config_of(teacher), name) for name in ("id2label", "label2id")}
        if folder.bare
        else {}
    )
    return (first_blocks(how.student_blocks, folder) if how.student_blocks else {}) | heads | names


def first_blocks(count: int, folder: Folder) -> dict[str, Any]:
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
    lists = {name: value[:count] for name, value in lists_by_block(fields, there).items()}
    return {"num_hidden_layers": count} | lists | of_experts(fields, list(range(count)))


def dividing(heads: int, folder: Folder) -> int:
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
def check_models_distill(how: Distill, teacher: Folder, recipe: Recipe, at_hand: bool) -> None:
    """Refuse students that this model cannot train and teachers that cannot train it together with
    this one.
    """
    for name in how.models:
        if at_hand and ModelName.parse(name).kind == "hub":
            continue
        student = name == getattr(how, "student", "")
        role, folder = (
            "student" if student else "teacher",
            resolve(name, head_for=teacher.kind if student else None),
        )
        refuse_stranger(folder, teacher, role)
        refuse_short(folder, role, recipe)
        if student:
            fields_of(how, folder, teacher)


def refuse_short(folder: Folder, role: str, recipe: Recipe) -> None:
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
    for option, asked in lengths.items():
        if limit and asked > limit:
            raise PlainError(
                f"The {role} {folder} reads at most {limit:,} tokens, and {option} is "
                f"{asked:,}; set it to at most {limit:,}."
            )


def refuse_stranger(folder: Folder, teacher: Folder, role: str) -> None:
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
    mine, its = (config_of(each) for each in (folder, teacher))
    if folder.kind in LANGUAGE or folder.bare:
        return
    if names_in(mine) != names_in(its):
        raise PlainError(
            f"The {role} {folder} knows the classes {said(mine)} and {teacher} {said(its)}; "
            f"choose a {role} with the same classes in the same order."
        )


def names_in(config: PreTrainedConfig) -> list[str]:
    return [str(config.id2label[number]).strip().lower() for number in sorted(config.id2label)]


def said(config: PreTrainedConfig, most: int = 6) -> str:
    names = names_in(config)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
