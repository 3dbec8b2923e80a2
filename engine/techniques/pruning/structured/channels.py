"""Channels of convolutions, found by torch-pruning's dependency graph (arXiv:2301.12900), which
lists every layer and norm that a channel belongs to. It traces a plain copy of the model and only
determines positions; scores and removal are the same as for neurons and heads.
"""

import torch
import torch_pruning
from torch import nn

from engine.errors import PlainError, option_name
from engine.models.loading import meta_model
from engine.models.shapes import fit_shapes
from engine.step.pruning_plan import TechniqueInput
from engine.techniques.pruning.structured.config import Structured
from engine.techniques.pruning.structured.coupled_structures import StructureGroup, StructureSlice
from engine.techniques.pruning.tracing import example_image


def channel_groups(technique_input: TechniqueInput) -> list[StructureGroup]:
    """All channels except those that pass through a grouped convolution that is not depthwise, in
    the model's order.
    """
    model = dense_copy(technique_input)
    names = {id(module): name for name, module in model.named_modules()}
    order = [layer.name for layer in technique_input.original.layers]
    with torch.inference_mode(False), torch.enable_grad():
        graph = torch_pruning.DependencyGraph().build_dependency(
            model.requires_grad_(), example_inputs={"pixel_values": example_image(model)}
        )
        groups = list(graph.get_all_groups(root_module_types=[nn.Conv2d]))
    families = [
        channel_group(graph, group, names)
        for group in groups
        if not any(is_grouped(dep.target.module) for dep, _ in group)
    ]
    return sorted(
        (family for family in families if family.readers),
        key=lambda family: order.index(family.block),
    )


def dense_copy(technique_input: TechniqueInput) -> nn.Module:
    """Copy of the model with torch's own layers and dense float32 weights."""
    original = technique_input.original
    stored = {
        layer.name: original.model.get_submodule(layer.name).stored for layer in original.layers
    }
    model = fit_shapes(meta_model(technique_input.folder), stored, original.plain)
    weights = {
        f"{name}.weight": weight.to_dense().reshape(model.get_submodule(name).weight.shape).cpu()
        for name, weight in stored.items()
    }
    plain = {
        name: value.float() if value.is_floating_point() else value
        for name, value in original.plain.items()
    }
    model.load_state_dict(weights | plain, strict=False, assign=True)
    return model


def is_grouped(module: nn.Module) -> bool:
    """True for a convolution with several channels per group."""
    return getattr(module, "groups", 1) != 1 and not is_depthwise_module(module)


def is_depthwise_module(module: nn.Module) -> bool:
    """True for a convolution that computes each channel from that channel alone."""
    return (
        getattr(module, "groups", 1)
        == getattr(module, "in_channels", 0)
        == getattr(module, "out_channels", 0)
        > 1
    )


def channel_group(
    graph: torch_pruning.DependencyGraph, group: torch_pruning.Group, names: dict[int, str]
) -> StructureGroup:
    """One group of the graph: layers that compute the channels, their norms, and layers that read
    them.
    """
    count = len(group[0].idxs)
    members = [
        (dep, torch.tensor(indices).view(count, -1))
        for dep, indices in group
        if id(dep.target.module) in names
    ]
    sides = [
        (dep.target.module, graph.is_out_channel_pruning_fn(dep.handler), indices)
        for dep, indices in members
    ]
    parts = [
        channel_slice(module, names, indices, out)
        for module, out, indices in sides
        if out or not is_depthwise_module(module)
    ]
    # a depthwise convolution appears as reader and as source
    once = {(part.name, part.side): part for part in parts}
    makers = [part.name for part in parts if part.side == "outputs" and not part.of_norm]
    return StructureGroup(min(makers), "channel", tuple(once.values()))


def channel_slice(
    module: nn.Module, names: dict[int, str], indices: torch.Tensor, outputs: bool
) -> StructureSlice:
    """Slice of a layer for these channels: rows of layers that compute them; for a convolution that
    reads them, all columns of its kernel.
    """
    kernel = isinstance(module, nn.Conv2d)
    if outputs:
        return StructureSlice(
            names[id(module)],
            "outputs",
            indices,
            of_norm=not isinstance(module, nn.Conv2d | nn.Linear),
        )
    area = module.kernel_size[0] * module.kernel_size[1] if kernel else 1
    return StructureSlice(
        names[id(module)], "inputs", ((indices * area)[..., None] + torch.arange(area)).flatten(1)
    )


def is_convolutional(technique_input: TechniqueInput) -> bool:
    """Return True if most layers are convolutions; a vision transformer has one, which splits the
    image into patches.
    """
    layers = technique_input.original.layers
    return 2 * sum(layer.kind == "conv2d" for layer in layers) > len(layers)


def check_convolutional(technique_input: TechniqueInput) -> None:
    if not is_convolutional(technique_input):
        reason = (
            "only one convolution or a few"
            if any(layer.kind == "conv2d" for layer in technique_input.original.layers)
            else "no convolutions"
        )
        raise PlainError(
            f"{technique_input.folder} has {reason}, so it has no channels to remove; set "
            f"{option_name(Structured, 'what')} to neurons or heads, or choose another technique."
        )
