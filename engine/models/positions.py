"""Maximum text length of a model, found by running the part that looks up positions.

Configurations give a number of positions (``max_position_embeddings``), but a model may start
counting after its padding token, as RoBERTa does, or shift positions by a constant, as OPT does,
with or without additional rows.
"""

import json
import warnings
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModel

from engine.models.loading import compute_buffers

NAMES = ("max_position_embeddings", "n_positions", "max_seq_len")
LARGEST_TABLE = 1 << 15  # rows; position tables are smaller, and longer ones are computed


class BlocksReached(Exception):
    """Raised to end a pass before the first block."""


def usable_length(config: Any) -> int | None:
    """Maximum number of tokens for a configuration; None if unlimited.

    The smaller of the configured length and what the position tables allow, for learned and
    sinusoidal positions with any offset. Rotary, ALiBi and relative positions have no table, so the
    configuration decides.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    if not hasattr(text, "to_dict"):
        return declared_length(text)
    return tested_length(text.model_type, json.dumps(text.to_dict(), sort_keys=True, default=str))


def declared_length(config: Any) -> int | None:
    """Length given in the configuration, or None."""
    return next(
        (
            limit
            for name in NAMES
            if isinstance(limit := getattr(config, name, None), int) and limit > 0
        ),
        None,
    )


@lru_cache(maxsize=64)
def tested_length(family: str, fields: str) -> int | None:
    """``usable_length`` of a configuration with these fields, as JSON."""
    config = CONFIG_MAPPING[family].from_dict(json.loads(fields))
    declared = declared_length(config)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            model = zero_model(config)
        except Exception:  # errors are reported when the model itself is built
            return declared
        tables = [len(table) for table in tables_outside_blocks(model)]
        longest = declared or max(tables, default=0)
        if not tables or longest > LARGEST_TABLE:
            return declared
        if length_fits(model, longest) or not length_fits(model, 1):
            return declared
        return longest_fitting_length(model, longest)


def zero_model(config: Any) -> nn.Module:
    """Base model with zero weights that take no memory, and real buffers."""
    with torch.device("meta"):
        model = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
    compute_buffers(model)
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, value in tensors.items():
                if value is not None and value.is_meta:
                    zeros = torch.zeros((), dtype=value.dtype).expand(value.shape)
                    tensors[name] = (
                        nn.Parameter(zeros, False) if tensors is module._parameters else zeros
                    )
    return model.eval()


def tables_outside_blocks(model: nn.Module) -> list[torch.Tensor]:
    """Matrices outside the blocks that may have a row per position: all but the token embeddings.
    (rows, width) each
    """
    tokens = getattr(model.get_input_embeddings(), "weight", None)
    named = [*model.named_parameters(), *model.named_buffers()]
    return [
        value
        for name, value in named
        if value.ndim == 2
        and value is not tokens
        and not any(part.isdigit() for part in name.split("."))
    ]


def length_fits(model: nn.Module, length: int) -> bool:
    """Return True if this many tokens reach the first block, or the end without blocks."""

    def stop_forward(*_: Any) -> None:
        raise BlocksReached

    padding = getattr(model.config, "pad_token_id", None)
    tokens = torch.full((1, length), 1 if padding == 0 else 0)
    blocks = [
        module[0] for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)
    ]
    hooks = [block.register_forward_pre_hook(stop_forward, with_kwargs=True) for block in blocks]
    try:
        with torch.no_grad():
            model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    except BlocksReached:
        return True
    except Exception:  # an index beyond a table, or shapes that do not match
        return False
    finally:
        for hook in hooks:
            hook.remove()
    return True


def longest_fitting_length(model: nn.Module, too_long: int) -> int:
    """Maximum length that works, found by bisection below one that fails; one token works."""
    read = 1
    while too_long - read > 1:
        middle = (read + too_long) // 2
        read, too_long = (middle, too_long) if length_fits(model, middle) else (read, middle)
    return read
