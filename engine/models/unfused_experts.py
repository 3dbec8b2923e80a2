"""Replacement of fused experts by one linear layer per expert and projection.

The storage layout of a module is found by comparing outputs instead of by its class: a scaled-down
copy computes a reference, and the first known layout with equal outputs is used. A module that no
layout reproduces is left unchanged.
"""

import copy
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from engine.models.experts import FusedLayout, ParallelLayout, layouts_for

SMALL = 6  # size of the dimensions of the scaled-down copy
TOLERANCE = 1e-4  # relative to the largest output of the scaled-down copy, in float32


def unfuse_experts(model: PreTrainedModel) -> PreTrainedModel:
    """Replace every module that stores several experts in one parameter, and return ``model``.

    Modules that are not replaced compute eagerly, because torch's grouped product refuses bfloat16
    rows that are not a multiple of 16 bytes wide.
    """
    model.set_experts_implementation("eager")
    layout_by_kind: dict[tuple[Any, ...], int | None] = {}
    for name, fused in list(model.named_modules()):
        layouts = list(layouts_for(fused))
        if not layouts:
            continue
        kind = (type(fused), tuple(value.shape for value in fused.parameters()))
        if kind not in layout_by_kind:
            layout_by_kind[kind] = matching_layout(fused)
        if (index := layout_by_kind[kind]) is not None:
            parent, _, child = name.rpartition(".")
            setattr(
                model.get_submodule(parent), child, layouts[index].module(fused, layouts[index])
            )
    return model


def matching_layout(fused: nn.Module) -> int | None:
    """Number of the first layout that reproduces the module's outputs on random input, or None."""
    small = scaled_down(fused)
    return next(
        (
            number
            for number, layout in enumerate(layouts_for(small))
            if is_reproduced(layout, small)
        ),
        None,
    )


@torch.no_grad()
def is_reproduced(layout: FusedLayout | ParallelLayout, small: nn.Module) -> bool:
    """Return True if the layout computes what ``small`` does, also if an expert gets no token."""
    # other shapes, arguments or attributes: another layout
    with suppress(RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        candidate = layout.module(small, layout)
        inputs = candidate.example(torch.Generator().manual_seed(1))
        expected, output = small(*inputs), candidate(*inputs)
        largest = expected.abs().max().item()
        return (
            expected.numel() == output.numel()
            and (expected.view_as(output) - output).abs().max().item() <= TOLERANCE * largest > 0
        )
    return False


def scaled_down(fused: nn.Module) -> nn.Module:
    """Copy with few random parameters, in float32 on the CPU. Sizes shrink in parameters and in
    attributes.
    """
    tensors = [*fused.parameters(), *fused.buffers()]
    numbers = {
        value for module in fused.modules() for value in vars(module).values() if type(value) is int
    }
    smaller = smaller_sizes(
        {size for value in tensors for size in value.shape},
        numbers,
        getattr(fused, "num_experts", 0),
    )
    generator = torch.Generator().manual_seed(0)
    small_tensors = {
        id(value): random_like(value, [smaller[size] for size in value.shape], generator)
        for value in tensors
    }
    config = getattr(fused, "config", None)
    small = copy.deepcopy(fused, small_tensors | ({} if config is None else {id(config): config}))
    for module in small.modules():
        for name, value in list(vars(module).items()):
            if type(value) is int:
                setattr(module, name, smaller.get(value, value))
    return small.eval()


def smaller_sizes(sizes: set[int], numbers: set[int], experts: int) -> dict[int, int]:
    """Map old sizes to new ones, keeping ratios of two and of the number of experts."""
    smaller: dict[int, int] = {}
    for size in sorted(sizes | (numbers & {size // experts for size in sizes if experts})):
        smaller[size] = 2 * smaller[size // 2] if size % 2 == 0 and size // 2 in smaller else SMALL
    part_sizes = {
        size: size // experts
        for size in sizes
        if experts and size % experts == 0 and size // experts in numbers
    }
    return smaller | {
        size: smaller[part] * smaller.get(experts, experts)
        for size, part in part_sizes.items()
        if size not in numbers
    }


def random_like(value: torch.Tensor, shape: list[int], generator: torch.Generator) -> torch.Tensor:
    """Random values that are large enough for clamped activations to clamp."""
    tensor = 2 * torch.randn(shape, generator=generator)
    return nn.Parameter(tensor, requires_grad=False) if isinstance(value, nn.Parameter) else tensor
