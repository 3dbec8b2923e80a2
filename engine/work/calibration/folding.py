"""Where a scale on a layer's inputs can be hidden in what comes before it, found by trying and not by name.

A pair of source and sinks is right when dividing the source's outputs by powers of two and multiplying the sinks' columns
by them leaves the block's output as it was: such scales are exact in any floating-point format.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from engine.work.calibration.seen import Seen
from engine.work.calibration.stream import Stream
from engine.work.stored.modules import UnpackingLinear
from engine.work.stored.weights import Dense

EQUAL = 1e-3  # of the largest output


@dataclass(frozen=True)
class Fold:
    """Layers that share an input, and the module before them that can take its scale."""

    source: str  # a norm, or a linear layer
    sinks: tuple[str, ...]
    from_norm: bool = False
    repeats: int = 1  # heads that share one of the source's (grouped-query attention)
    head: int = 0  # width of a head, where repeats > 1

    def tied(self, scales: torch.Tensor) -> torch.Tensor:
        """Scales that the source can take: equal (the geometric mean) where its outputs are repeated.  (in_,) -> (in_,)"""
        if self.repeats == 1:
            return scales
        shared = scales.log().view(-1, self.repeats, self.head).mean(1, keepdim=True).exp()
        return shared.expand(-1, self.repeats, -1).flatten()

    def at_source(self, scales: torch.Tensor) -> torch.Tensor:
        """Of the source's outputs, (out,), when the sinks' inputs have these."""
        return scales if self.repeats == 1 else scales.view(-1, self.repeats, self.head)[:, 0].flatten()

    def apply(self, model: nn.Module, scales: torch.Tensor) -> None:
        """Divide the source's outputs and multiply the sinks' columns, in place; the layers become dense."""
        divide_outputs(model.get_submodule(self.source), self.at_source(scales))
        for name in self.sinks:
            sink = model.get_submodule(name)
            hold(sink, sink.stored.dense() * scales)


def divide_outputs(source: nn.Module, scales: torch.Tensor) -> None:
    if isinstance(source, UnpackingLinear):
        hold(source, source.stored.dense() / scales[:, None])
    else:
        source.weight.data = (source.weight.float() / scales).to(source.weight.dtype)
    if getattr(source, "bias", None) is not None:
        source.bias.data = (source.bias.float() / scales).to(source.bias.dtype)


def hold(module: UnpackingLinear, weight: torch.Tensor) -> None:
    module.stored = Dense(tuple(weight.shape), weight)


@torch.no_grad()
def folds_in(stream: Stream, block: str, seen: dict[str, Seen], layers: list[str]) -> list[Fold]:
    """Every group of layers with one input that has a source inside the block, at most one source each.

    A source is a norm or one of ``layers``: a layer that is kept as it was takes no scale.
    """
    groups: dict[int, list[str]] = {}
    for name in layers:
        if isinstance(stream.model.get_submodule(name), UnpackingLinear) and name in seen:
            groups.setdefault(id(seen[name]), []).append(name)
    before, order = tried(stream, block)
    kept = {name for name in order if isinstance(stream.model.get_submodule(name), UnpackingLinear)} - {*layers}
    order = [name for name in order if name not in kept]
    found = (fold_of(stream, block, tuple(names), before, order) for names in groups.values())
    return [fold for fold in found if fold]


def fold_of(stream: Stream, block: str, sinks: tuple[str, ...], before: torch.Tensor, order: list[str]) -> Fold | None:
    """The nearest module before the sinks that can take their scale."""
    width = stream.model.get_submodule(sinks[0]).stored.shape[1]
    earlier = order[: order.index(sinks[0])][::-1]
    for source in earlier:
        fold = fitting(stream.model, source, sinks, width)
        if fold and holds(stream, block, fold, before, width):
            return fold
    return None


def fitting(model: nn.Module, source: str, sinks: tuple[str, ...], width: int) -> Fold | None:
    """The fold that the widths allow, if any."""
    module = model.get_submodule(source)
    linear = isinstance(module, UnpackingLinear)
    outputs = module.stored.shape[0] if linear else module.weight.shape[0]
    if outputs == width:
        return Fold(source, sinks, from_norm=not linear)
    head = getattr(model.get_submodule(source.rpartition(".")[0]), "head_dim", 0)
    repeated = linear and head and outputs % head == 0 and width % outputs == 0
    return Fold(source, sinks, repeats=width // outputs, head=head) if repeated else None


def holds(stream: Stream, block: str, fold: Fold, before: torch.Tensor, width: int) -> bool:
    powers = torch.randint(-2, 3, (width,), generator=torch.Generator().manual_seed(0)).float()
    scales = fold.tied(powers.exp2()).log2().round().exp2().to(stream.device)
    with undone(stream.model, [fold.source, *fold.sinks]):
        fold.apply(stream.model, scales)
        after, _ = tried(stream, block)
    return bool((after - before).abs().max() <= EQUAL * before.abs().max())


@contextmanager
def undone(model: nn.Module, names: list[str]) -> Iterator[None]:
    """Give modules their weights back."""
    modules = [model.get_submodule(name) for name in names]
    kept = [(m, getattr(m, "stored", None), m._parameters.get("weight"), m._parameters.get("bias")) for m in modules]
    values = [(p, p.data) for _, _, *parameters in kept for p in parameters if p is not None]
    try:
        yield
    finally:
        for module, stored, _, _ in kept:
            if stored is not None:
                module.stored = stored
        for parameter, value in values:
            parameter.data = value


def tried(stream: Stream, block: str) -> tuple[torch.Tensor, list[str]]:
    """The block's output on the first batch, and the norms and linear layers of it in the order in which they ran."""
    order: list[str] = []
    modules = ((name, module) for name, module in stream.model.named_modules() if name.startswith(f"{block}.") and foldable(module))
    hooks = [module.register_forward_hook(lambda module, args, output, name=name: order.append(name)) for name, module in modules]
    try:
        output = stream.through(block, 0)
    finally:
        for hook in hooks:
            hook.remove()
    return output.float(), order


def foldable(module: nn.Module) -> bool:
    """Linear layers, and norms with a gain for each channel."""
    weight = module._parameters.get("weight")
    return isinstance(module, UnpackingLinear) or (weight is not None and weight.ndim == 1)
