"""Adaptation of a model without values to tensor shapes that differ from its configuration, as in
pruned models.
"""

import re
from copy import copy
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.models.layers import shape_of
from engine.tensors.weights import StoredWeight

Shape = tuple[int, ...]
Changes = dict[str, tuple[Shape, Shape]]  # layer of a module -> old and new shape
# attributes that count heads, or key/value groups
HEAD_COUNT = re.compile(r"(^|_)n?_?heads?$|heads$|key_value_groups$")
OF_KEYS = re.compile(r"kv|key")
# attributes with their total width
WIDTH = re.compile(r"((embed|hidden|split|all_head|inner|attn|attention|kv|key_value)_)?(dim|size)")

# buffer of an attention module with the indices of the remaining heads, for per-head arguments
KEPT_HEADS = "kept_heads"


def fit_shapes(
    model: nn.Module, stored: dict[str, StoredWeight], plain: dict[str, torch.Tensor]
) -> nn.Module:
    """Give every layer and norm the shape of its tensor and update the numbers of heads; changes
    and returns ``model``.
    """
    changes: dict[str, Changes] = {}  # by parent module
    for name, weight in stored.items():
        module = model.get_submodule(name)
        out, in_ = weight.shape
        shape = (out, in_ // torch.Size(shape_of(module)[2:]).numel(), *shape_of(module)[2:])
        if shape != (before := shape_of(module)):
            resize_layer(module, shape)
            owner, _, child = name.rpartition(".")
            changes.setdefault(owner, {})[child] = before, shape
    for name in plain:
        owner, _, tensor = name.rpartition(".")
        if tensor == KEPT_HEADS:
            keep_heads(model.get_submodule(owner), plain[name])
    for owner, changed in changes.items():
        recount_heads(model.get_submodule(owner), changed)
    for name, value in plain.items():
        owner, _, tensor = name.rpartition(".")
        resize_tensor(model.get_submodule(owner), tensor, value.shape)
    return model


def resize_layer(module: nn.Module, shape: Shape) -> None:
    """``shape``: output channels first"""
    if 1 < getattr(module, "groups", 1) == module.weight.shape[0] and shape[1] == 1:
        module.groups = shape[0]  # each channel is a group
    resize_tensor(
        module, "weight", torch.Size(shape[::-1] if isinstance(module, Conv1D) else shape)
    )
    for out, in_ in (
        ("out_features", "in_features"),
        ("out_channels", "in_channels"),
        ("nf", "nx"),
    ):
        if hasattr(module, out):
            setattr(module, out, shape[0])
            setattr(module, in_, shape[1] * getattr(module, "groups", 1))


def resize_tensor(module: nn.Module, tensor: str, shape: torch.Size) -> None:
    """Resize a parameter or buffer, still without values."""
    current = getattr(module, tensor, None)
    if current is None or current.shape == shape:
        return
    empty = torch.empty(shape, dtype=current.dtype, device="meta")
    if tensor in module._parameters:
        module._parameters[tensor] = nn.Parameter(empty, requires_grad=False)
    else:
        module._buffers[tensor] = empty
    if hasattr(module, "num_features"):
        module.num_features = shape[0]


# --- attention heads ---------------------------------------------------------------------------


def recount_heads(attention: nn.Module, changed: Changes) -> None:
    """Set the numbers of heads in attention's attributes or configuration to those of its layers;
    the head width is unchanged.

    The layer that reads the heads shrinks in proportion; if it is in another module, the query
    layer does. Keys and values have shrunk equally if their layers have, or if one layer computes
    all three.
    """
    if not any(is_head_count(name) for name in integers_of(attention)):
        return
    outputs = [
        Fraction(after[0], before[0]) for before, after in changed.values() if after[0] != before[0]
    ]
    inputs = [
        Fraction(after[1], before[1]) for before, after in changed.values() if after[1] != before[1]
    ]
    queries = min(inputs or outputs, default=Fraction(1))
    keys = (
        queries
        if all(output_heads == queries for output_heads in outputs)
        and not only_queries_changed(attention, changed)
        else Fraction(1)
    )
    width = max(
        before[1] if inputs else before[0]
        for before, after in changed.values()
        if not inputs or after[1] != before[1]
    )
    scale_counts(attention, queries, keys, width)
    if hasattr(attention, "config"):  # shared by all layers, whose numbers of heads may now differ
        attention.config = copy(attention.config)
        scale_counts(attention.config, queries, keys, width=0)


def keep_heads(attention: nn.Module, kept: torch.Tensor) -> None:
    """Make an attention module select its own heads from per-head arguments, such as ALiBi slopes,
    which the model computes for all heads in its configuration.
    """
    heads = next(
        value
        for name, value in integers_of(attention).items()
        if is_head_count(name) and not OF_KEYS.search(name)
    )
    attention.register_buffer(KEPT_HEADS, torch.empty_like(kept, device="meta"))

    def select(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        states = args[0] if args else kwargs["hidden_states"]
        part = partial(select_heads, kept=module.kept_heads, heads=heads, states=states)
        return tuple(map(part, args)), {name: part(value) for name, value in kwargs.items()}

    attention.register_forward_pre_hook(select, with_kwargs=True)


def select_heads(value: object, kept: torch.Tensor, heads: int, states: torch.Tensor) -> object:
    """Attention argument without removed heads if it has one number or row per head, otherwise
    unchanged.

    Such arguments are (heads, ..., keys), (batch heads, ..., keys) or (batch, heads, queries,
    keys).
    """
    if not isinstance(value, torch.Tensor) or value.shape == states.shape or value.ndim < 3:
        return value
    if value.ndim == 4:
        return value[:, kept] if value.shape[1] == heads else value
    if value.shape[0] not in (heads, len(states) * heads):
        return value
    return value.unflatten(0, (-1, heads))[:, kept].flatten(0, 1)


def only_queries_changed(attention: nn.Module, changed: Changes) -> bool:
    """Return True if the only layer with changed outputs has unchanged siblings with the same
    input: those of keys and values.
    """
    changed_outputs = [before for before, after in changed.values() if before[0] != after[0]]
    layers = {
        name: module
        for name, module in attention.named_children()
        if isinstance(module, nn.Linear | Conv1D)
    }
    return len(changed_outputs) == 1 and any(
        shape_of(module)[1] == changed_outputs[0][1]
        for name, module in layers.items()
        if name not in changed
    )


def integers_of(owner: object) -> dict[str, int]:
    return {name: value for name, value in vars(owner).items() if type(value) is int}


def is_head_count(name: str) -> bool:
    """Return True if an attribute counts heads or key/value groups."""
    return bool(HEAD_COUNT.search(name))


def scale_counts(owner: object, queries: Fraction, keys: Fraction, width: int) -> None:
    """Scale the numbers of heads. ``queries``, ``keys``: share of heads that remain; ``width``:
    previous total width of the query heads.
    """
    counts = integers_of(owner)
    heads = next(
        (
            value
            for name, value in counts.items()
            if is_head_count(name) and not OF_KEYS.search(name)
        ),
        0,
    )
    of_keys = next(
        (
            value
            for name, value in counts.items()
            if is_head_count(name) and OF_KEYS.search(name) and "group" not in name
        ),
        heads,
    )
    for name, value in counts.items():
        if is_head_count(name):
            share = queries / keys if "group" in name else keys if OF_KEYS.search(name) else queries
        elif WIDTH.fullmatch(name) and width:
            share = (
                keys
                if OF_KEYS.search(name) and heads and value == width * of_keys // heads
                else queries
                if value == width
                else Fraction(1)
            )
        else:
            continue
        if (value * share).denominator == 1:
            setattr(owner, name, int(value * share))
