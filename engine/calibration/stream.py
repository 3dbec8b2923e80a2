"""Calibration activations passed through a model whose blocks change one after the other.

Where each block feeds the next, every batch is kept between two blocks, so a block's statistics
cost one pass through that block. Layers outside of such a chain need passes through the whole
model.
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
    InputStats,
    has_observable_inputs,
    input_layout,
    input_reader,
    input_vectors,
    kernel_area,
)
from engine.calibration.routing import ExpertRouting
from engine.evaluation.calibration_batches import Batch
from engine.evaluation.measured import inputs_on_device
from engine.models.layers import text_reader
from engine.models.packed_modules import keep_unpacked

STAGE = re.compile(r"\.stages\.\d+\.layers$")
IN_STEP_BYTES = 2e9  # bytes of activations that may be kept for batches that pass a block in step


class StopForward(Exception):
    """Ends a forward pass whose remainder is not needed."""


@dataclass
class BlockCall:
    """Arguments of a block's call with one batch."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def states(self) -> torch.Tensor:
        return self.args[0] if self.args else self.kwargs["hidden_states"]

    def with_states(self, states: torch.Tensor) -> "BlockCall":
        """Return the call with other states."""
        return (
            BlockCall((states, *self.args[1:]), self.kwargs)
            if self.args
            else BlockCall((), self.kwargs | {"hidden_states": states})
        )


@dataclass
class CalibrationStream:
    """Passes ``batches`` through ``model``, which may be changed between calls. ``step`` is called
    after each batch and may raise to stop.
    """

    model: nn.Module
    batches: list[Batch]
    device: torch.device
    step: Callable[[], None] = lambda: None
    chain: list[str] = field(init=False)  # blocks that feed one another
    # inputs of the next block of the chain, for each batch
    waiting: list[torch.Tensor] = field(default_factory=list)
    calls: dict[str, list[BlockCall]] = field(default_factory=dict)
    # blocks that all batches have passed in step
    passed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        # a cache would grow with each pass through a block
        self.model.config.get_text_config().use_cache = False
        self.chain = block_chain(
            self.model,
            lambda: self.whole({key: value[:1] for key, value in self.batches[0].items()}),
        )

    @torch.no_grad()
    def whole(self, batch: Batch) -> Any:
        return self.model(**inputs_on_device(batch, self.model, self.device))

    @torch.no_grad()
    def collect_stats(
        self, block: str, names: list[str], wants_gram: bool
    ) -> dict[str, InputStats]:
        """Input statistics of these layers. The block's position in the chain is kept until
        ``advance``.
        """
        routing = ExpertRouting.for_layers(self.model, names)
        with observe_inputs(self.model, names, wants_gram, self.device) as stats:
            self.run_block(block, 0)
            self.step()
            # with experts, batches reach different layers, so none is known to be the last
            with stop_before(
                self.model, list(stats)[-1:] if block in self.chain and not routing.layers else []
            ):
                for index in range(1, len(self.batches)):
                    with suppress(StopForward):
                        self.run_block(block, index)
                    self.step()
        return self.with_replacements(stats, routing, wants_gram)

    def with_replacements(
        self, stats: dict[str, InputStats], routing: ExpertRouting, wants_gram: bool
    ) -> dict[str, InputStats]:
        """Statistics with replacements for experts that received too few tokens."""
        for name, layer_stats in stats.items():
            routing.fill_missing_tokens(name, layer_stats)
            layer_stats.check_usable(name)
        if siblings := routing.siblings_to_observe(self.model, stats):
            with observe_inputs(self.model, list(siblings), False, self.device) as sibling_stats:
                for batch in self.batches:
                    self.whole(batch)
                    self.step()
            routing.note(sibling_stats, siblings)
        return stats | routing.unreached_stats(
            stats,
            lambda name: self.model.get_submodule(name).stored.shape[1],
            wants_gram,
            self.device,
        )

    def run_block(self, block: str, index: int) -> torch.Tensor:
        """Pass one batch through one block of the chain, or through the whole model."""
        if block not in self.chain:
            return self.whole(self.batches[index])
        self.capture_chain_inputs(block)
        call = self.calls[block][index].with_states(self.waiting[index])
        return first_output(self.model.get_submodule(block)(*call.args, **call.kwargs))

    def in_step_fits(self, block: str, names: list[str]) -> bool:
        """Return True if the block is in the chain and its intermediate states of all batches fit
        into memory.
        """
        layers = [
            module
            for name in names
            if has_observable_inputs(module := self.model.get_submodule(name))
        ]
        if block not in self.chain or not layers:
            return False
        self.capture_chain_inputs(block)
        # channels of an image are the second axis
        width = self.waiting[0].shape[1 if self.waiting[0].ndim == 4 else -1]
        widest = max(module.stored.shape[1] // kernel_area(module) for module in layers)
        return (
            4 * sum(states.numel() for states in self.waiting) * (2 + widest / width)
            <= IN_STEP_BYTES
        )

    @torch.no_grad()
    def run_in_step(
        self,
        block: str,
        names: list[str],
        wants_gram: bool,
        change: Callable[[str, InputStats], None],
    ) -> dict[str, InputStats]:
        """Combine ``collect_stats`` and ``advance``: every batch waits before each layer until all
        have arrived; ``change(name, stats)`` then changes the layer, and the batches continue with
        its new outputs.

        Experts that no batch reaches are not changed; replacements for their statistics are
        returned. A batch skips experts without tokens of its own, so batches may wait at different
        experts of a module, which each reaches in the order of ``names``. They enter such a module
        together and meet at the next layer that none skips.
        """
        changed: set[str] = set()
        routing = ExpertRouting.for_layers(self.model, names)
        with (
            pause_before_layers(self.model, names, wants_gram, self.device, changed) as stats,
            keep_unpacked(self.model.get_submodule(block)),
        ):
            passes, order = (
                [BatchPass(self.run_block) for _ in self.batches],
                {name: number for number, name in enumerate(names)},
            )
            next_layers = [
                block_pass.switch(block, index) for index, block_pass in enumerate(passes)
            ]
            while waiting_layers := {
                layer
                for layer, block_pass in zip(next_layers, passes, strict=True)
                if not block_pass.dead
            }:
                name = min(
                    waiting_layers & routing.layers.keys() or waiting_layers,
                    key=lambda layer: order.get(layer, len(order)),
                )
                if name in order:
                    routing.fill_missing_tokens(name, stats[name])
                    stats[name].check_usable(name)
                    change(name, stats.pop(name))
                    changed.add(name)
                next_layers = [
                    block_pass.switch() if not block_pass.dead and layer == name else layer
                    for layer, block_pass in zip(next_layers, passes, strict=True)
                ]
                self.step()
        self.waiting = next_layers
        self.calls.pop(block)
        self.passed.add(block)
        return routing.unreached_stats(
            changed,
            lambda name: self.model.get_submodule(name).stored.shape[1],
            wants_gram,
            self.device,
        )

    @torch.no_grad()
    def advance(self, block: str) -> None:
        """Finish a block: its outputs, computed with its current weights, become the inputs of the
        next block. Outputs of the last block are not needed.
        """
        if block in self.chain and block not in self.passed:
            self.capture_chain_inputs(block)
            if block != self.chain[-1]:
                with keep_unpacked(self.model.get_submodule(block)):
                    for index in range(len(self.batches)):
                        self.waiting[index] = self.run_block(block, index)
                        self.step()
            self.calls.pop(block)

    def capture_chain_inputs(self, block: str) -> None:
        """Bring every batch to the beginning of the chain. The calls of all blocks are recorded in
        one pass in which the blocks compute nothing.
        """
        if not self.calls:
            self.calls = {name: [] for name in self.chain}
            with skip_blocks(self.model, self.chain, self.calls):
                for batch in self.batches:
                    with suppress(StopForward):
                        self.whole(batch)
                    self.step()
            self.waiting = [call.states for call in self.calls[self.chain[0]]]


def first_output(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def active_hooks(hooks: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def observe_inputs(
    model: nn.Module, names: list[str], wants_gram: bool, device: torch.device
) -> Iterator[dict[str, InputStats]]:
    """Record inputs; layers that read the same tensor in the same layout share one ``InputStats``,
    filled by the first.
    """
    stats: dict[str, InputStats] = {}
    latest: list[Any] = [None, None, None]  # last input, its layer and its layout

    def recording_hook(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            shared = args[0] is latest[0] and input_layout(module) == latest[2]
            if shared and name not in stats:
                stats[name] = stats[latest[1]]  # created at the first batch
            elif not shared:
                latest[:] = args[0], name, input_layout(module)
            if latest[1] == name:
                add_batch(stats, name, module, args[0], wants_gram, device)

        return hook

    watched_modules = ((name, input_reader(model, name)) for name in names)
    with active_hooks(
        [
            module.register_forward_pre_hook(recording_hook(name))
            for name, module in watched_modules
            if has_observable_inputs(module)
        ]
    ):
        yield stats


def add_batch(
    stats: dict[str, InputStats],
    name: str,
    module: nn.Module,
    inputs: torch.Tensor,
    wants_gram: bool,
    device: torch.device,
) -> None:
    """Add a batch to a layer's input statistics."""
    rows = input_vectors(module, inputs)
    if name not in stats:
        stats[name] = InputStats(rows.shape[1], device, wants_gram, area=kernel_area(module))
    stats[name].add(rows)


class BatchPass(greenlet):
    """One batch that passes a block and can wait at any layer."""

    latest: Any = None  # last input of a layer
    layout: Any = None  # layout of the first layer that read it
    stats: InputStats | None = None  # statistics of the layers that read it


@contextmanager
def pause_before_layers(
    model: nn.Module, names: list[str], wants_gram: bool, device: torch.device, changed: set[str]
) -> Iterator[dict[str, InputStats]]:
    """Record inputs as ``observe_inputs`` does, for batches in a ``BatchPass`` each: they wait,
    with the layer's name, before each layer in ``changed`` and before every module that routes
    tokens to experts.
    """
    stats: dict[str, InputStats] = {}

    def pausing_hook(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if name in changed:
                return
            batch = getcurrent()
            if args[0] is batch.latest and input_layout(module) == batch.layout:
                stats.setdefault(name, batch.stats)
            else:
                batch.latest, batch.layout = args[0], input_layout(module)
                add_batch(stats, name, module, args[0], wants_gram, device)
                batch.stats = stats[name]
            batch.parent.switch(name)

        return hook

    def routing_hook(path: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            getcurrent().parent.switch(path)

        return hook

    modules = {
        name: module for name in names if has_observable_inputs(module := input_reader(model, name))
    }
    routers = {
        path: model.get_submodule(path) for path in ExpertRouting.for_layers(model, modules).paths
    }
    hooks = [
        module.register_forward_pre_hook(routing_hook(path)) for path, module in routers.items()
    ]
    with active_hooks(
        [
            *hooks,
            *(
                module.register_forward_pre_hook(pausing_hook(name))
                for name, module in modules.items()
            ),
        ]
    ):
        yield stats


@contextmanager
def stop_before(model: nn.Module, names: list[str]) -> Iterator[None]:
    """End a pass before one of these layers computes; the rest of the model is not needed."""

    def stop_forward(module: nn.Module, args: tuple[Any, ...]) -> None:
        raise StopForward

    with active_hooks(
        [model.get_submodule(name).register_forward_pre_hook(stop_forward) for name in names]
    ):
        yield


@contextmanager
def skip_blocks(
    model: nn.Module, chain: list[str], calls: dict[str, list[BlockCall]]
) -> Iterator[None]:
    """Replace the blocks of the chain: each records its call and returns its input in the form of
    its output, and the last one ends the pass.
    """
    blocks = {name: model.get_submodule(name) for name in chain}

    def recording_forward(name: str) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            call = BlockCall(args, kwargs)
            calls[name].append(call)
            if name == chain[-1]:
                raise StopForward
            return call.states

        return forward

    for name, block in blocks.items():
        block.forward = recording_forward(name)
    try:
        yield
    finally:
        for block in blocks.values():
            del block.forward


def block_chain(model: nn.Module, run_once: Callable[[], Any]) -> list[str]:
    """Blocks of the longest module list in which each block's output is the same tensor as the next
    one's input, found by running the model once.
    """
    names = max(block_lists(model), key=len, default=[])
    went_in: dict[str, Any] = {}
    came_out: dict[str, Any] = {}

    def input_hook(name: str) -> Callable[..., Any]:
        return lambda module, args, kwargs: went_in.update(
            {name: BlockCall(args, kwargs).states if args or "hidden_states" in kwargs else None}
        )

    def output_hook(name: str) -> Callable[..., Any]:
        return lambda module, args, output: came_out.update({name: output})

    modules = {name: model.get_submodule(name) for name in names}
    hooks = [
        module.register_forward_pre_hook(input_hook(name), with_kwargs=True)
        for name, module in modules.items()
    ]
    with active_hooks(
        [
            *hooks,
            *(module.register_forward_hook(output_hook(name)) for name, module in modules.items()),
        ]
    ):
        run_once()
    plain = all(isinstance(came_out.get(name), torch.Tensor) for name in names)
    linked = plain and all(came_out[one] is went_in.get(next_) for one, next_ in pairwise(names))
    return names if linked and len(names) > 1 else []


def block_lists(model: nn.Module) -> list[list[str]]:
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


def block_sequences(model: nn.Module) -> list[list[str]]:
    """Lists of consecutive blocks: a transformer has one, a ResNet one for each stage; empty if the
    model has no lists of blocks.
    """
    stages = [
        [f"{name}.{child}" for child, _ in module.named_children()]
        for name, module in model.named_modules()
        if STAGE.search(name)
    ]
    return stages or [row for row in [max(block_lists(model), key=len, default=[])] if row]
