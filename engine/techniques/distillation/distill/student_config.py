"""Configuration of a student: number format, width, blocks and heads."""

from typing import Any

import torch
from transformers import PreTrainedConfig

from engine.errors import PlainError, option_name
from engine.models.loading import (
    ModelSource,
    config_of,
)
from engine.step.pruning_plan import TechniqueInput
from engine.techniques.distillation.distill.config import (
    Distill,
    ModelTraining,
)
from engine.techniques.pruning.blocks.method import (
    expert_fields,
    per_block_lists,
)

# names of the inner width of a feed-forward part; GPT-2's n_inner may be None, for four times the
# hidden size
INNER_WIDTH_FIELDS = ("intermediate_size", "ffn_dim", "n_inner")
# inner width of an expert
EXPERT_WIDTH_FIELDS = (
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
)


def student_dtype(config: ModelTraining, folder: ModelSource) -> torch.dtype:
    return getattr(torch, folder.dtype if config.values == "model" else config.values)


def config_fields(
    config: PreTrainedConfig, folder: ModelSource, dtype: torch.dtype
) -> dict[str, Any]:
    """Fields of config.json."""
    return config.to_dict() | {
        "architectures": [folder.architecture],
        "dtype": str(dtype).removeprefix("torch."),
    }


def width_fields(config: PreTrainedConfig, share: float, folder: ModelSource) -> dict[str, Any]:
    """Fields that determine the width of a model. The head width is unchanged, so there are fewer
    heads.

    Raises PlainError if they are not known.
    """
    if folder.multimodal:
        raise PlainError(
            f"{folder} reads images or sound too, for a language model of this width; set "
            f"{option_name(Distill, 'width')} to 1, and keep fewer blocks or heads."
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
            f"({folder.architecture}); set {option_name(Distill, 'width')} to 1."
        )
    groups = fields.get("num_key_value_heads") or heads
    left = max(1, round(share * groups)) * (heads // groups)
    narrow = {
        "num_attention_heads": left,
        "hidden_size": hidden * left // heads,
        inner: fields[inner] and scaled_size(fields[inner], share),
    }
    embedded = fields.get(
        "word_embed_proj_dim"
    )  # OPT's embeddings may be narrower than its hidden states
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


def block_count_fields(
    kept_blocks: list[list[str]], stacks: list[list[str]], technique_input: TechniqueInput
) -> dict[str, Any]:
    """Fields of the configuration that count blocks or have an entry for each block."""
    fields = technique_input.original.model.config.get_text_config().to_dict()
    if "depths" in fields:
        return {"depths": [len(row) for row in kept_blocks]}
    left = [stacks[0].index(block) for block in kept_blocks[0]]
    lists = per_block_lists(fields, len(stacks[0]))
    return (
        {"num_hidden_layers": len(left)}
        | {name: [value[number] for number in left] for name, value in lists.items()}
        | expert_fields(fields, left)
    )


def student_config_fields(
    config: Distill, folder: ModelSource, teacher: ModelSource
) -> dict[str, Any]:
    """Fields of the student's configuration that differ from those of its file."""
    heads = (
        {"num_attention_heads": checked_head_count(config.student_heads, folder)}
        if config.student_heads
        else {}
    )
    names = (
        {name: getattr(config_of(teacher), name) for name in ("id2label", "label2id")}
        if folder.without_head
        else {}
    )
    return (
        (first_blocks_fields(config.student_blocks, folder) if config.student_blocks else {})
        | heads
        | names
    )


def first_blocks_fields(count: int, folder: ModelSource) -> dict[str, Any]:
    """Fields that count blocks or have an entry for each block. Raises PlainError if the model has
    fewer blocks.
    """
    config = config_of(folder).get_text_config()
    blocks = getattr(config, "num_hidden_layers", 0)
    if count > blocks:
        raise PlainError(
            f"The student {folder} has {blocks} blocks, fewer than the {count} of "
            f"{option_name(Distill, 'student_blocks')}; set it to {blocks} at most."
        )
    fields = config.to_dict()
    lists = {name: value[:count] for name, value in per_block_lists(fields, blocks).items()}
    return {"num_hidden_layers": count} | lists | expert_fields(fields, list(range(count)))


def checked_head_count(heads: int, folder: ModelSource) -> int:
    """Number of heads. Raises PlainError if the model cannot have as many."""
    config = config_of(folder).get_text_config()
    width, groups = getattr(config, "hidden_size", 0), getattr(config, "num_key_value_heads", None)
    if not isinstance(width, int) or groups or not width or width % heads:
        reason = (
            "heads that share keys and values"
            if groups
            else f"a width of {width}, which {heads} heads do not divide"
            if width
            else "no heads"
        )
        raise PlainError(
            f"The student {folder} has {reason}; set "
            f"{option_name(Distill, 'student_heads')} to 0, or to a divisor of its width."
        )
    return heads
