"""Calibration activations on their way through a model whose blocks change one after the other.

Where blocks feed one another, each batch waits between two blocks and a block's data costs that block's own work. What
stands outside such a chain is seen in passes through the whole model.
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

from engine.work.calibration.seen import Seen, area_of, rows_of, seeable
from engine.work.stored.modules import unpacked_once
from engine.work.tasks.calibration import Batch
from engine.work.tasks.measured import placed

STAGE = re.compile(r"\.stages\.\d+\.layers$")
IN_STEP_BYTES = 2e9  # of activations that may be held for batches that go through a block in step


class ReachedTheBlock(Exception):
    """Ends a pass that is needed no further."""


@dataclass
class Call:
    """How a block was called with one batch."""

    args: tuple
    kwargs: dict[str, Any]

    @property
    def states(self) -> torch.Tensor:
        return self.args[0] if self.args else self.kwargs["hidden_states"]

    def on(self, states: torch.Tensor) -> "Call":
        """The same call on other states."""
        return Call((states, *self.args[1:]), self.kwargs) if self.args else Call((), self.kwargs | {"hidden_states": states})


@dataclass
class Stream:
    """Feeds ``model``, which may be changed between calls, with ``batches``. ``step`` is called after each batch and may raise to stop."""

    model: nn.Module
    batches: list[Batch]
    device: torch.device
    step: Callable[[], None] = lambda: None
    chain: list[str] = field(init=False)  # blocks of which each is fed by the one before
    waiting: list[torch.Tensor] = field(default_factory=list)  # what the next block of the chain gets, for each batch
    calls: dict[str, list[Call]] = field(default_factory=dict)
    passed: set[str] = field(default_factory=set)  # blocks that all batches have gone through in step

    def __post_init__(self) -> None:
        self.model.config.use_cache = False  # a cache would remember each look at a block
        self.chain = chain_of(self.model, lambda: self.whole({key: value[:1] for key, value in self.batches[0].items()}))

    @torch.no_grad()
    def whole(self, batch: Batch) -> Any:
        return self.model(**placed(batch, self.model, self.device))

    @torch.no_grad()
    def look(self, block: str, names: list[str], wants_gram: bool) -> dict[str, Seen]:
        """What each of these layers sees. The block's own position in the chain is kept until ``go_on``."""
        with watched(self.model, names, wants_gram, self.device) as seen:
            self.through(block, 0)
            self.step()
            with ended_at(self.model, list(seen)[-1:] if block in self.chain else []):
                for index in range(1, len(self.batches)):
                    with suppress(ReachedTheBlock):
                        self.through(block, index)
                    self.step()
        for name, each in seen.items():
            each.refuse_nonsense(name)
        return seen

    def through(self, block: str, index: int) -> torch.Tensor:
        """One batch through one block of the chain, or through the whole model."""
        if block not in self.chain:
            return self.whole(self.batches[index])
        self.arrive(block)
        call = self.calls[block][index].on(self.waiting[index])
        return first(self.model.get_submodule(block)(*call.args, **call.kwargs))

    def goes_in_step(self, block: str, names: list[str]) -> bool:
        """Whether the block is of the chain and what all batches hold in its midst is little enough."""
        layers = [module for name in names if seeable(module := self.model.get_submodule(name))]
        if block not in self.chain or not layers:
            return False
        self.arrive(block)
        width = self.waiting[0].shape[1 if self.waiting[0].ndim == 4 else -1]  # channels of a picture stand second
        widest = max(module.stored.shape[1] // area_of(module) for module in layers)
        return 4 * sum(each.numel() for each in self.waiting) * (2 + widest / width) <= IN_STEP_BYTES

    @torch.no_grad()
    def in_step(self, block: str, names: list[str], wants_gram: bool, change: Callable[[str, Seen], None]) -> None:
        """``look`` and ``go_on`` in one: before each of the layers every batch waits until all have come; ``change(name, seen)`` then changes
        the layer, and they go on with what it makes of them now.
        """
        changed: set[str] = set()
        with waited_before(self.model, names, wants_gram, self.device, changed) as seen, unpacked_once(self.model.get_submodule(block)):
            passes = [Pass(self.through) for _ in self.batches]
            at = [each.switch(block, index) for index, each in enumerate(passes)]
            while waits := {place for place, each in zip(at, passes, strict=True) if not each.dead}:
                name = min(waits, key=names.index)
                seen[name].refuse_nonsense(name)
                change(name, seen[name])
                changed.add(name)
                at = [each.switch() if not each.dead and place == name else place for place, each in zip(at, passes, strict=True)]
                self.step()
        self.waiting = at
        self.calls.pop(block)
        self.passed.add(block)

    @torch.no_grad()
    def go_on(self, block: str) -> None:
        """The block has changed for good: its outputs become what the next one gets. Those of the last block nobody gets."""
        if block in self.chain and block not in self.passed:
            self.arrive(block)
            if block != self.chain[-1]:
                with unpacked_once(self.model.get_submodule(block)):
                    for index in range(len(self.batches)):
                        self.waiting[index] = self.through(block, index)
                        self.step()
            self.calls.pop(block)

    def arrive(self, block: str) -> None:
        """Bring every batch to the beginning of the chain. All blocks' calls are taken down in one pass in which the blocks do nothing."""
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
def hooked(hooks: list) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def watched(model: nn.Module, names: list[str], wants_gram: bool, device: torch.device) -> Iterator[dict[str, Seen]]:
    """Layers whose input is the same tensor share one ``Seen``: the first that gets it takes it down."""
    seen: dict[str, Seen] = {}
    held: list = [None, None]  # the latest input and whose it was

    def noted(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple) -> None:
            if args[0] is held[0] and name not in seen:
                seen[name] = seen[held[1]]  # from the first batch on
            elif args[0] is not held[0]:
                held[:] = args[0], name
            if held[1] == name:
                taken_down(seen, name, module, args[0], wants_gram, device)

        return hook

    watched_modules = ((name, model.get_submodule(name)) for name in names)
    with hooked([module.register_forward_pre_hook(noted(name)) for name, module in watched_modules if seeable(module)]):
        yield seen


def taken_down(seen: dict[str, Seen], name: str, module: nn.Module, inputs: torch.Tensor, wants_gram: bool, device: torch.device) -> None:
    """One more batch of what a layer sees."""
    rows = rows_of(module, inputs)
    if name not in seen:
        seen[name] = Seen(rows.shape[1], device, wants_gram, area=area_of(module))
    seen[name].add(rows)


class Pass(greenlet):
    """One batch on its way through a block; it can wait anywhere."""

    latest: Any = None  # the input it met last
    met_by: str = ""  # and the first layer that it met it at


@contextmanager
def waited_before(model: nn.Module, names: list[str], wants_gram: bool, device: torch.device, changed: set[str]) -> Iterator[dict[str, Seen]]:
    """Like ``watched``, for batches that are a ``Pass`` each: they wait, naming the layer, before it is one of those ``changed``."""
    seen: dict[str, Seen] = {}

    def waiting(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple) -> None:
            if name in changed:
                return
            batch = getcurrent()
            if args[0] is batch.latest:
                seen.setdefault(name, seen[batch.met_by])
            else:
                batch.latest, batch.met_by = args[0], name
                taken_down(seen, name, module, args[0], wants_gram, device)
            batch.parent.switch(name)

        return hook

    watched_modules = ((name, model.get_submodule(name)) for name in names)
    with hooked([module.register_forward_pre_hook(waiting(name)) for name, module in watched_modules if seeable(module)]):
        yield seen


@contextmanager
def ended_at(model: nn.Module, names: list[str]) -> Iterator[None]:
    """A pass ends where one of these layers is about to multiply: what comes after is not looked at."""

    def reached(module: nn.Module, args: tuple) -> None:
        raise ReachedTheBlock

    with hooked([model.get_submodule(name).register_forward_pre_hook(reached) for name in names]):
        yield


@contextmanager
def idle(model: nn.Module, chain: list[str], calls: dict[str, list[Call]]) -> Iterator[None]:
    """The chain's blocks only note how they are called, hand their input on in the form of their output, and the last one ends the pass."""
    blocks = {name: model.get_submodule(name) for name in chain}

    def standing_in(name: str) -> Callable:
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
    """The blocks of the longest module list in which each block's output is the very tensor that the next one gets; found by running once."""
    names = max(lists_of_blocks(model), key=len, default=[])
    went_in: dict[str, Any] = {}
    came_out: dict[str, Any] = {}

    def entered(name: str) -> Callable:
        return lambda module, args, kwargs: went_in.update({name: Call(args, kwargs).states if args or "hidden_states" in kwargs else None})

    def left(name: str) -> Callable:
        return lambda module, args, output: came_out.update({name: output})

    modules = {name: model.get_submodule(name) for name in names}
    hooks = [module.register_forward_pre_hook(entered(name), with_kwargs=True) for name, module in modules.items()]
    with hooked([*hooks, *(module.register_forward_hook(left(name)) for name, module in modules.items())]):
        once()
    plain = all(isinstance(came_out.get(name), torch.Tensor) for name in names)
    linked = plain and all(came_out[one] is went_in.get(next_) for one, next_ in pairwise(names))
    return names if linked and len(names) > 1 else []


def lists_of_blocks(model: nn.Module) -> list[list[str]]:
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    return [[f"{name}.{child}" for child, _ in blocks.named_children()] for name, blocks in lists.items()]


def rows_of_blocks(model: nn.Module) -> list[list[str]]:
    """Blocks that follow one another: a transformer has one such row, a ResNet one for each stage; none where there are no lists of blocks."""
    stages = [[f"{name}.{child}" for child, _ in module.named_children()] for name, module in model.named_modules() if STAGE.search(name)]
    return stages or [row for row in [max(lists_of_blocks(model), key=len, default=[])] if row]
