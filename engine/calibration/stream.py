"""Calibration activations on their way through a model whose blocks change one after the other.

Where blocks feed one another, each batch waits between two blocks and a block's data costs that
block's own work. What stands outside such a chain is seen in passes through the whole model.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from greenlet import getcurrent, greenlet
from torch import nn

from engine.calibration.activation_stats import (
    Seen,
    area_of,
    layout_of,
    reader_of,
    rows_of,
    seeable,
)
from engine.calibration.routing import Routing
from engine.evaluation.calibration_batches import Batch
from engine.evaluation.measured import placed
from engine.models.layers import text_reader
from engine.models.packed_modules import unpacked_once

STAGE = re.compile(r"\.stages\.\d+\.layers$")
IN_STEP_BYTES = 2e9  # of activations that may be held for batches that go through a block in step


class ReachedTheBlock(Exception):
    """Ends a pass that is needed no further."""


@dataclass
class Call:
    """Arguments of a block's call with one batch."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def states(self) -> torch.Tensor:
        return self.args[0] if self.args else self.kwargs["hidden_states"]

    def on(self, states: torch.Tensor) -> "Call":
        """Return the call with other states."""
        return (
            Call((states, *self.args[1:]), self.kwargs)
            if self.args
            else Call((), self.kwargs | {"hidden_states": states})
        )


@dataclass
class Stream:
    """Feeds ``model``, which may be changed between calls, with ``batches``. ``step`` is called
    after each batch and may raise to stop.
    """

    model: nn.Module
    batches: list[Batch]
    device: torch.device
    step: Callable[[], None] = lambda: None
    chain: list[str] = field(init=False)  # blocks of which each is fed by the one before
    # what the next block of the chain gets, for each batch
    waiting: list[torch.Tensor] = field(default_factory=list)
    calls: dict[str, list[Call]] = field(default_factory=dict)
    # blocks that all batches have gone through in step
    passed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        # a cache would grow with each pass through a block
        self.model.config.get_text_config().use_cache = False
        self.chain = chain_of(
            self.model,
            lambda: self.whole({key: value[:1] for key, value in self.batches[0].items()}),
        )

    @torch.no_grad()
    def whole(self, batch: Batch) -> Any:
        return self.model(**placed(batch, self.model, self.device))

    @torch.no_grad()
    def look(self, block: str, names: list[str], wants_gram: bool) -> dict[str, Seen]:
        """Input statistics of these layers. The block's position in the chain is kept until
        ``go_on``.
        """
        routing = Routing.of(self.model, names)
        with watched(self.model, names, wants_gram, self.device) as seen:
            self.through(block, 0)
            self.step()
            # with experts, batches reach different layers, so none is known to be the last
            with ended_at(
                self.model, list(seen)[-1:] if block in self.chain and not routing.layers else []
            ):
                for index in range(1, len(self.batches)):
                    with suppress(ReachedTheBlock):
                        self.through(block, index)
                    self.step()
        return self.completed(seen, routing, wants_gram)

    def completed(
        self, seen: dict[str, Seen], routing: Routing, wants_gram: bool
    ) -> dict[str, Seen]:
        """Statistics with replacements for experts that received too few tokens."""
        for name, each in seen.items():
            routing.complete(name, each)
            each.refuse_nonsense(name)
        if siblings := routing.siblings_to_look_at(self.model, seen):
            with watched(self.model, list(siblings), False, self.device) as others:
                for batch in self.batches:
                    self.whole(batch)
                    self.step()
            routing.note(others, siblings)
        return seen | routing.unreached(
            seen,
            lambda name: self.model.get_submodule(name).stored.shape[1],
            wants_gram,
            self.device,
        )

    def through(self, block: str, index: int) -> torch.Tensor:
        """One batch through one block of the chain, or through the whole model."""
        if block not in self.chain:
            return self.whole(self.batches[index])
        self.arrive(block)
        call = self.calls[block][index].on(self.waiting[index])
        return first(self.model.get_submodule(block)(*call.args, **call.kwargs))

    def goes_in_step(self, block: str, names: list[str]) -> bool:
        """Return True if the block is in the chain and its intermediate states of all batches fit
        into memory.
        """
        layers = [module for name in names if seeable(module := self.model.get_submodule(name))]
        if block not in self.chain or not layers:
            return False
        self.arrive(block)
        # channels of a picture stand second
        width = self.waiting[0].shape[1 if self.waiting[0].ndim == 4 else -1]
        widest = max(module.stored.shape[1] // area_of(module) for module in layers)
        return (
            4 * sum(each.numel() for each in self.waiting) * (2 + widest / width) <= IN_STEP_BYTES
        )

    @torch.no_grad()
    def in_step(
        self, block: str, names: list[str], wants_gram: bool, change: Callable[[str, Seen], None]
    ) -> dict[str, Seen]:
        """Combine ``look`` and ``go_on``: every batch waits before each layer until all have
        arrived; ``change(name, seen)`` then changes the layer, and the batches continue with its
        new outputs.

        Experts that no batch reaches are not changed; replacements for their statistics are
        returned. A batch skips experts without tokens of its own, so batches may wait at different
        experts of a module, which each reaches in the order of ``names``. They enter such a module
        together and meet at the next layer that none skips.
        """
        changed: set[str] = set()
        routing = Routing.of(self.model, names)
        with (
            waited_before(self.model, names, wants_gram, self.device, changed) as seen,
            unpacked_once(self.model.get_submodule(block)),
        ):
            passes, order = (
                [Pass(self.through) for _ in self.batches],
                {name: number for number, name in enumerate(names)},
            )
            at = [each.switch(block, index) for index, each in enumerate(passes)]
            while waits := {place for place, each in zip(at, passes, strict=True) if not each.dead}:
                name = min(
                    waits & routing.layers.keys() or waits,
                    key=lambda place: order.get(place, len(order)),
                )
                if name in order:
                    routing.complete(name, seen[name])
                    seen[name].refuse_nonsense(name)
                    change(name, seen.pop(name))
                    changed.add(name)
                at = [
                    each.switch() if not each.dead and place == name else place
                    for place, each in zip(at, passes, strict=True)
                ]
                self.step()
        self.waiting = at
        self.calls.pop(block)
        self.passed.add(block)
        return routing.unreached(
            changed,
            lambda name: self.model.get_submodule(name).stored.shape[1],
            wants_gram,
            self.device,
        )

    @torch.no_grad()
    def go_on(self, block: str) -> None:
        """The block has changed for good: its outputs become what the next one gets. Those of the
        last block are not used.
        """
        if block in self.chain and block not in self.passed:
            self.arrive(block)
            if block != self.chain[-1]:
                with unpacked_once(self.model.get_submodule(block)):
                    for index in range(len(self.batches)):
                        self.waiting[index] = self.through(block, index)
                        self.step()
            self.calls.pop(block)

    def arrive(self, block: str) -> None:
        """Bring every batch to the beginning of the chain. All blocks' calls are taken down in one
        pass in which the blocks do nothing.
        """
        if not self.calls:
            self.calls = {name: [] for name in self.chain}
            with idle(self.model, self.chain, self.calls):
                for batch in self.batches:
                    with suppress(ReachedTheBlock):
                        self.whole(batch)
                    self.step()
            self.waiting = [call.states for call in self.calls[self.chain[0]]]


def first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def hooked(hooks: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def watched(
    model: nn.Module, names: list[str], wants_gram: bool, device: torch.device
) -> Iterator[dict[str, Seen]]:
    """Record inputs; layers that read the same tensor in the same layout share one ``Seen``, filled
    by the first.
    """
    seen: dict[str, Seen] = {}
    held: list[Any] = [None, None, None]  # the latest input, its layer and layout

    def noted(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            shared = args[0] is held[0] and layout_of(module) == held[2]
            if shared and name not in seen:
                seen[name] = seen[held[1]]  # from the first batch on
            elif not shared:
                held[:] = args[0], name, layout_of(module)
            if held[1] == name:
                taken_down(seen, name, module, args[0], wants_gram, device)

        return hook

    watched_modules = ((name, reader_of(model, name)) for name in names)
    with hooked(
        [
            module.register_forward_pre_hook(noted(name))
            for name, module in watched_modules
            if seeable(module)
        ]
    ):
        yield seen


def taken_down(
    seen: dict[str, Seen],
    name: str,
    module: nn.Module,
    inputs: torch.Tensor,
    wants_gram: bool,
    device: torch.device,
) -> None:
    """Add a batch to a layer's input statistics."""
    rows = rows_of(module, inputs)
    if name not in seen:
        seen[name] = Seen(rows.shape[1], device, wants_gram, area=area_of(module))
    seen[name].add(rows)


class Pass(greenlet):
    """One batch on its way through a block; it can wait anywhere."""

    latest: Any = None  # the input it met last
    layout: Any = None  # layout of the first layer that read it
    seen: Seen | None = None  # statistics of the layers that read it


@contextmanager
def waited_before(
    model: nn.Module, names: list[str], wants_gram: bool, device: torch.device, changed: set[str]
) -> Iterator[dict[str, Seen]]:
    """Record inputs as ``watched`` does, for batches that are a ``Pass`` each: they wait, with the
    layer's name, before each layer in ``changed`` and before every module that routes tokens to
    experts.
    """
    seen: dict[str, Seen] = {}

    def waiting(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if name in changed:
                return
            batch = getcurrent()
            if args[0] is batch.latest and layout_of(module) == batch.layout:
                seen.setdefault(name, batch.seen)
            else:
                batch.latest, batch.layout = args[0], layout_of(module)
                taken_down(seen, name, module, args[0], wants_gram, device)
                batch.seen = seen[name]
            batch.parent.switch(name)

        return hook

    def beginning(path: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            getcurrent().parent.switch(path)

        return hook

    modules = {name: module for name in names if seeable(module := reader_of(model, name))}
    begins = {path: model.get_submodule(path) for path in Routing.of(model, modules).paths}
    hooks = [module.register_forward_pre_hook(beginning(path)) for path, module in begins.items()]
    with hooked(
        [
            *hooks,
            *(module.register_forward_pre_hook(waiting(name)) for name, module in modules.items()),
        ]
    ):
        yield seen


@contextmanager
def ended_at(model: nn.Module, names: list[str]) -> Iterator[None]:
    """A pass ends where one of these layers is about to multiply: what comes after is not looked
    at.
    """

    def reached(module: nn.Module, args: tuple[Any, ...]) -> None:
        raise ReachedTheBlock

    with hooked([model.get_submodule(name).register_forward_pre_hook(reached) for name in names]):
        yield


@contextmanager
def idle(model: nn.Module, chain: list[str], calls: dict[str, list[Call]]) -> Iterator[None]:
    """The chain's blocks only note how they are called, hand their input on in the form of their
    output, and the last one ends the pass.
    """
    blocks = {name: model.get_submodule(name) for name in chain}

    def standing_in(name: str) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            call = Call(args, kwargs)
            calls[name].append(call)
            if name == chain[-1]:
                raise ReachedTheBlock
            return call.states

        return forward

    for name, block in blocks.items():
        block.forward = standing_in(name)
    try:
        yield
    finally:
        for block in blocks.values():
            del block.forward


def chain_of(model: nn.Module, once: Callable[[], Any]) -> list[str]:
    """The blocks of the longest module list in which each block's output is the very tensor that
    the next one gets; found by running once.
    """
    names = max(lists_of_blocks(model), key=len, default=[])
    went_in: dict[str, Any] = {}
    came_out: dict[str, Any] = {}

    def entered(name: str) -> Callable[..., Any]:
        return lambda module, args, kwargs: went_in.update(
            {name: Call(args, kwargs).states if args or "hidden_states" in kwargs else None}
        )

    def left(name: str) -> Callable[..., Any]:
        return lambda module, args, output: came_out.update({name: output})

    modules = {name: model.get_submodule(name) for name in names}
    hooks = [
        module.register_forward_pre_hook(entered(name), with_kwargs=True)
        for name, module in modules.items()
    ]
    with hooked(
        [*hooks, *(module.register_forward_hook(left(name)) for name, module in modules.items())]
    ):
        once()
    plain = all(isinstance(came_out.get(name), torch.Tensor) for name in names)
    linked = plain and all(came_out[one] is went_in.get(next_) for one, next_ in pairwise(names))
    return names if linked and len(names) > 1 else []


def lists_of_blocks(model: nn.Module) -> list[list[str]]:
    reads_text = text_reader(model)
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and reads_text(name)
    }
    return [
        [f"{name}.{child}" for child, _ in blocks.named_children()]
        for name, blocks in lists.items()
    ]


def rows_of_blocks(model: nn.Module) -> list[list[str]]:
    """Blocks that follow one another: a transformer has one such row, a ResNet one for each stage;
    none where there are no lists of blocks.
    """
    stages = [
        [f"{name}.{child}" for child, _ in module.named_children()]
        for name, module in model.named_modules()
        if STAGE.search(name)
    ]
    return stages or [row for row in [max(lists_of_blocks(model), key=len, default=[])] if row]
