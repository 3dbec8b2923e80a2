"""Channels of convolutions: torch-pruning's dependency graph (arXiv:2301.12900) finds every layer
and norm that one runs through.

It traces a plain copy of the model, and only tells where channels stand: scores and cuts are the
same as those of neurons and heads.
"""

import torch
import torch_pruning
from torch import nn

from engine.errors import PlainError
from engine.models.loading import skeleton
from engine.models.shapes import fit
from engine.step.pruning_plan import Subject
from engine.techniques.pruning.structured.coupled_structures import Family, Part
from engine.techniques.pruning.tracing import example_image


def channels(subject: Subject) -> list[Family]:
    """All channels except those that pass through a grouped convolution that is not depthwise, in
    the model's order.
    """
    model = plain_copy(subject)
    names = {id(module): name for name, module in model.named_modules()}
    order = [layer.name for layer in subject.original.layers]
    with torch.inference_mode(False), torch.enable_grad():
        graph = torch_pruning.DependencyGraph().build_dependency(
            model.requires_grad_(), example_inputs={"pixel_values": example_image(model)}
        )
        groups = list(graph.get_all_groups(root_module_types=[nn.Conv2d]))
    families = [
        family_of(graph, group, names)
        for group in groups
        if not any(grouped(dep.target.module) for dep, _ in group)
    ]
    return sorted(
        (family for family in families if family.readers),
        key=lambda family: order.index(family.block),
    )


def plain_copy(subject: Subject) -> nn.Module:
    """The model with torch's own layers, its weights dense in float32."""
    original = subject.original
    held = {
        layer.name: original.model.get_submodule(layer.name).stored for layer in original.layers
    }
    model = fit(skeleton(subject.folder), held, original.plain)
    weights = {
        f"{name}.weight": each.dense().reshape(model.get_submodule(name).weight.shape).cpu()
        for name, each in held.items()
    }
    plain = {
        name: value.float() if value.is_floating_point() else value
        for name, value in original.plain.items()
    }
    model.load_state_dict(weights | plain, strict=False, assign=True)
    return model


def grouped(module: nn.Module) -> bool:
    """True for a convolution with several channels per group."""
    return getattr(module, "groups", 1) != 1 and not one_by_one(module)


def one_by_one(module: nn.Module) -> bool:
    """True for a convolution that computes each channel from that channel alone."""
    return (
        getattr(module, "groups", 1)
        == getattr(module, "in_channels", 0)
        == getattr(module, "out_channels", 0)
        > 1
    )


def family_of(
    graph: torch_pruning.DependencyGraph, group: torch_pruning.Group, names: dict[int, str]
) -> Family:
    """One of the graph's groups: what makes the channels, norms them and reads them."""
    count = len(group[0].idxs)
    members = [
        (dep, torch.tensor(places).view(count, -1))
        for dep, places in group
        if id(dep.target.module) in names
    ]
    sides = [
        (dep.target.module, graph.is_out_channel_pruning_fn(dep.handler), places)
        for dep, places in members
    ]
    parts = [
        part_of(module, names, places, out)
        for module, out, places in sides
        if out or not one_by_one(module)
    ]
    # a depthwise convolution appears as reader and as source
    once = {(part.name, part.side): part for part in parts}
    makers = [part.name for part in parts if part.side == "outputs" and not part.of_norm]
    return Family(min(makers), "channel", tuple(once.values()))


def part_of(module: nn.Module, names: dict[int, str], places: torch.Tensor, outputs: bool) -> Part:
    """A channel is a row of what makes it; of a convolution that reads it, as many columns as its
    kernel has places.
    """
    kernel = isinstance(module, nn.Conv2d)
    if outputs:
        return Part(
            names[id(module)],
            "outputs",
            places,
            of_norm=not isinstance(module, nn.Conv2d | nn.Linear),
        )
    area = module.kernel_size[0] * module.kernel_size[1] if kernel else 1
    return Part(
        names[id(module)], "inputs", ((places * area)[..., None] + torch.arange(area)).flatten(1)
    )


def convolutional(subject: Subject) -> bool:
    """Return True if most layers are convolutions; a vision transformer has one, which splits the
    image into patches.
    """
    layers = subject.original.layers
    return 2 * sum(layer.kind == "conv2d" for layer in layers) > len(layers)


def refuse_others(subject: Subject) -> None:
    if not convolutional(subject):
        few = (
            "only one convolution or a few"
            if any(layer.kind == "conv2d" for layer in subject.original.layers)
            else "no convolutions"
        )
        raise PlainError(
            f"{subject.folder} has {few}, so it has no channels to remove; set what to "
            "neurons or heads, or choose another technique."
        )
