"""Modules into which a scale of a layer's inputs can be folded, found by testing rather than by
name.

A source and its sinks are valid if dividing the source's outputs by powers of two and multiplying
the sinks' columns by them leaves the block's output unchanged: such scales are exact in any
floating-point format.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from engine.calibration.activation_stats import InputStats
from engine.calibration.routing import ExpertRouting
from engine.calibration.stream import CalibrationStream
from engine.models.packed_modules import UnpackingLinear
from engine.models.routed_layers import RoutedLayer, routed_layers
from engine.tensors.weights import DenseWeight

TOLERANCE = 1e-3  # relative to the largest output
LAST, BEFORE_LAST = "down_proj", "up_proj"  # of an expert
ROWS = 16  # random tokens to test an expert with


@dataclass(frozen=True)
class Fold:
    """Layers that share an input, and the module before them that can take its scale."""

    source: str  # a norm, or a linear layer
    sinks: tuple[str, ...]
    from_norm: bool = False
    repeats: int = 1  # heads that share one of the source's (grouped-query attention)
    head: int = 0  # head width, where repeats > 1
    # other modules that read the source, such as a router; they are only rescaled
    companions: tuple[str, ...] = ()

    def repeated_scales(self, scales: torch.Tensor) -> torch.Tensor:
        """Scales that the source can take: equal (the geometric mean) where its outputs are
        repeated. (in_,) -> (in_,)
        """
        if self.repeats == 1:
            return scales
        shared = scales.log().view(-1, self.repeats, self.head).mean(1, keepdim=True).exp()
        return shared.expand(-1, self.repeats, -1).flatten()

    def source_scales(self, scales: torch.Tensor) -> torch.Tensor:
        """Scales of the source's outputs, (out,), for given scales of the sinks' inputs."""
        return (
            scales
            if self.repeats == 1
            else scales.view(-1, self.repeats, self.head)[:, 0].flatten()
        )

    def apply(self, model: nn.Module, scales: torch.Tensor) -> None:
        """Divide the source's outputs and multiply the sinks' columns, in place; the layers become
        dense.
        """
        divide_outputs(model.get_submodule(self.source), self.source_scales(scales))
        for name in (*self.sinks, *self.companions):
            multiply_columns(model.get_submodule(name), scales)


def multiply_columns(reader: nn.Module, scales: torch.Tensor) -> None:
    if isinstance(reader, UnpackingLinear):
        set_weight(reader, reader.stored.to_dense() * scales)
    else:
        reader.weight.data = (reader.weight.float() * scales).to(reader.weight.dtype)


def divide_outputs(source: nn.Module, scales: torch.Tensor) -> None:
    if isinstance(source, UnpackingLinear):
        set_weight(source, source.stored.to_dense() / scales[:, None])
    else:
        source.weight.data = (source.weight.float() / scales).to(source.weight.dtype)
    if getattr(source, "bias", None) is not None:
        source.bias.data = (source.bias.float() / scales).to(source.bias.dtype)


def set_weight(module: UnpackingLinear, weight: torch.Tensor) -> None:
    module.stored = DenseWeight(tuple(weight.shape), weight)


@torch.no_grad()
def scale_folds(
    stream: CalibrationStream, block: str, stats: dict[str, InputStats], layers: list[str]
) -> list[Fold]:
    """Groups of layers with one input that have a source inside the block, at most one source each.

    A source is a norm or one of ``layers``; a layer that is not compressed takes no scale. The
    first layers of all experts of a block share one scale, because their tokens come from one norm;
    the last layer of an expert has its own.
    """
    routed = routed_layers(stream.model, layers)
    groups: dict[int, list[str]] = {}
    for name in layers:
        if (
            isinstance(stream.model.get_submodule(name), UnpackingLinear)
            and name in stats
            and name not in routed
        ):
            groups.setdefault(id(stats[name]), []).append(name)
    before, order = compress_with_scales(stream, block)
    compressed = {
        name for name in order if isinstance(stream.model.get_submodule(name), UnpackingLinear)
    } - {*layers}
    order = [name for name in order if name not in compressed and name not in routed]
    found = {
        tuple(names): nearest_fold(stream, block, tuple(names), before, order)
        for names in groups.values()
    }
    without_source = [names for names, fold in found.items() if fold is None]
    before_experts = [
        fold_into_experts(
            stream, block, path, [n for n in routed if n in stats], without_source, before, order
        )
        for path in ExpertRouting(routed).paths
    ]
    inside = [
        fold_inside_expert(stream.model, name, routed_layer)
        for name, routed_layer in routed.items()
        if name in stats and routed_layer.projection == LAST
    ]
    return [fold for fold in (*found.values(), *before_experts, *inside) if fold]


def fold_into_experts(
    stream: CalibrationStream,
    block: str,
    path: str,
    names: list[str],
    unfolded: list[tuple[str, ...]],
    before: torch.Tensor,
    order: list[str],
) -> Fold | None:
    """Fold one scale for all readers of the input of the experts at ``path``: their first layers,
    those of a shared expert, and the routers, which are only rescaled. ``alone``: groups without a
    source.
    """
    routed = routed_layers(stream.model, names)
    sinks = [
        name
        for name, routed_layer in routed.items()
        if routed_layer.path == path and routed_layer.projection != LAST
    ]
    if not sinks:
        return None
    width, parent = stream.model.get_submodule(sinks[0]).stored.shape[1], path.rpartition(".")[0]
    near = [
        name
        for group in unfolded
        for name in group
        if name.startswith(f"{parent}.")
        and has_input_width(stream.model.get_submodule(name), width)
    ]
    sinks = (*sinks, *near)
    linear_layers = (
        (name, module)
        for name, module in stream.model.named_modules()
        if name.startswith(f"{parent}.") and not name.startswith(f"{path}.")
    )
    companions = tuple(
        name
        for name, module in linear_layers
        if name not in sinks and has_input_width(module, width) and name not in routed
    )
    for source in order[::-1]:
        fold = fold_by_width(stream.model, source, sinks, width)
        if (
            source not in sinks
            and fold
            and fold_is_exact(
                stream, block, fold := replace(fold, companions=companions), before, width
            )
        ):
            return fold
    return None


def has_input_width(module: nn.Module, width: int) -> bool:
    """Return True for a linear layer, or a router's bare matrix, on inputs of this width."""
    if isinstance(module, UnpackingLinear):
        return module.stored.shape[1] == width
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim == 2 and weight.shape[1] == width


def fold_inside_expert(model: nn.Module, name: str, routed: RoutedLayer) -> Fold | None:
    """Fold for the inputs of an expert's last layer, with the layer before it as the source, tested
    on the expert only.
    """
    experts, source = model.get_submodule(routed.path), f"{name.removesuffix(LAST)}{BEFORE_LAST}"
    width = model.get_submodule(name).stored.shape[1]
    fold = fold_by_width(model, source, (name,), width)
    if fold is None:
        return None
    into = model.get_submodule(source)
    rows = torch.randn(ROWS, into.stored.shape[1], generator=torch.Generator().manual_seed(0)).to(
        into.weight
    )
    before = experts.expert_output(int(routed.expert), rows)
    with preserve_weights(model, [source, name]):
        fold.apply(model, powers_of_two(width, fold).to(rows.device))
        after = experts.expert_output(int(routed.expert), rows)
    return fold if bool((after - before).abs().max() <= TOLERANCE * before.abs().max()) else None


def nearest_fold(
    stream: CalibrationStream,
    block: str,
    sinks: tuple[str, ...],
    before: torch.Tensor,
    order: list[str],
) -> Fold | None:
    """The nearest module before the sinks that can take their scale."""
    width = stream.model.get_submodule(sinks[0]).stored.shape[1]
    earlier = order[: order.index(sinks[0])][::-1]
    for source in earlier:
        fold = fold_by_width(stream.model, source, sinks, width)
        if fold and fold_is_exact(stream, block, fold, before, width):
            return fold
    return None


def fold_by_width(model: nn.Module, source: str, sinks: tuple[str, ...], width: int) -> Fold | None:
    """The fold that the widths allow, or None."""
    module = model.get_submodule(source)
    linear = isinstance(module, UnpackingLinear)
    outputs = module.stored.shape[0] if linear else module.weight.shape[0]
    if outputs == width:
        return Fold(source, sinks, from_norm=not linear)
    head = getattr(model.get_submodule(source.rpartition(".")[0]), "head_dim", 0)
    repeated = linear and head and outputs % head == 0 and width % outputs == 0
    return Fold(source, sinks, repeats=width // outputs, head=head) if repeated else None


def fold_is_exact(
    stream: CalibrationStream, block: str, fold: Fold, before: torch.Tensor, width: int
) -> bool:
    with preserve_weights(stream.model, [fold.source, *fold.sinks, *fold.companions]):
        fold.apply(stream.model, powers_of_two(width, fold).to(stream.device))
        after, _ = compress_with_scales(stream, block)
    return bool((after - before).abs().max() <= TOLERANCE * before.abs().max())


def powers_of_two(width: int, fold: Fold) -> torch.Tensor:
    powers = torch.randint(-2, 3, (width,), generator=torch.Generator().manual_seed(0)).float()
    return fold.repeated_scales(powers.exp2()).log2().round().exp2()


@contextmanager
def preserve_weights(model: nn.Module, names: list[str]) -> Iterator[None]:
    """Restore the weights of modules."""
    modules = [model.get_submodule(name) for name in names]
    saved = [
        (m, getattr(m, "stored", None), m._parameters.get("weight"), m._parameters.get("bias"))
        for m in modules
    ]
    values = [(p, p.data) for _, _, *parameters in saved for p in parameters if p is not None]
    try:
        yield
    finally:
        for module, stored, _, _ in saved:
            if stored is not None:
                module.stored = stored
        for parameter, value in values:
            parameter.data = value


def compress_with_scales(stream: CalibrationStream, block: str) -> tuple[torch.Tensor, list[str]]:
    """Output of the block on the first batch, and its norms and linear layers in the order of
    execution.
    """
    order: list[str] = []
    modules = (
        (name, module)
        for name, module in stream.model.named_modules()
        if name.startswith(f"{block}.") and is_foldable(module)
    )
    hooks = [
        module.register_forward_hook(lambda module, args, output, name=name: order.append(name))
        for name, module in modules
    ]
    try:
        output = stream.run_block(block, 0)
    finally:
        for hook in hooks:
            hook.remove()
    return output.float(), order


def is_foldable(module: nn.Module) -> bool:
    """Linear layers, and norms with a gain for each channel."""
    weight = module._parameters.get("weight")
    return isinstance(module, UnpackingLinear) or (weight is not None and weight.ndim == 1)
