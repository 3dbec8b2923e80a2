"""Makes a model without values fit tensors of other shapes than its configuration says: a pruned model's layers differ from one another."""

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.work.layers import shape_of
from engine.work.stored.weights import Stored

HEAD_WIDTH = ("head_dim", "attention_head_size")
QUERIES, KEYS, FUSED = ("q_proj", "query", "q_lin"), ("k_proj", "key", "k_lin"), "c_attn"  # what attention calls its layers; GPT-2's holds all three


def fit(model: nn.Module, stored: dict[str, Stored], plain: dict[str, torch.Tensor]) -> nn.Module:
    """Every layer and norm has the shape of what will be put into it; attention counts its heads anew. Changes and returns ``model``."""
    for name, each in stored.items():
        module = model.get_submodule(name)
        out, in_ = each.shape
        shape = (out, in_ // torch.Size(shape_of(module)[2:]).numel(), *shape_of(module)[2:])
        if shape != shape_of(module):
            resize(module, shape)
            recount_heads(model.get_submodule(name.rpartition(".")[0]))
    for name, value in plain.items():
        owner, _, tensor = name.rpartition(".")
        reshape(model.get_submodule(owner), tensor, value.shape)
    return model


def resize(module: nn.Module, shape: tuple[int, ...]) -> None:
    """``shape``: output channels first"""
    reshape(module, "weight", torch.Size(shape[::-1] if isinstance(module, Conv1D) else shape))
    for out, in_ in (("out_features", "in_features"), ("out_channels", "in_channels"), ("nf", "nx")):
        if hasattr(module, out):
            setattr(module, out, shape[0])
            setattr(module, in_, shape[1])


def reshape(module: nn.Module, tensor: str, shape: torch.Size) -> None:
    """A parameter or buffer of another shape, still without values."""
    held = getattr(module, tensor, None)
    if held is None or held.shape == shape:
        return
    empty = torch.empty(shape, dtype=held.dtype, device="meta")
    if tensor in module._parameters:
        module._parameters[tensor] = nn.Parameter(empty, requires_grad=False)
    else:
        module._buffers[tensor] = empty
    if hasattr(module, "num_features"):
        module.num_features = shape[0]


def recount_heads(attention: nn.Module) -> None:
    """What attention notes of its heads, from its layers' widths; the width of one head stays."""
    head = next((width for name in HEAD_WIDTH if (width := getattr(attention, name, None))), None)
    queries, keys = width_of(attention, QUERIES), width_of(attention, KEYS)
    if not (head and queries and keys):
        return
    counts = {"num_heads": queries // head, "n_heads": queries // head, "num_attention_heads": queries // head, "num_key_value_heads": keys // head,
              "num_key_value_groups": queries // keys, "split_size": queries, "all_head_size": queries}  # fmt: skip
    for name, count in counts.items():
        if hasattr(attention, name):
            setattr(attention, name, count)


def width_of(attention: nn.Module, names: tuple[str, ...]) -> int:
    """All heads' outputs together; 0 where there is no such layer."""
    if hasattr(attention, FUSED):
        return shape_of(getattr(attention, FUSED))[0] // 3
    return next((shape_of(getattr(attention, name))[0] for name in names if hasattr(attention, name)), 0)
