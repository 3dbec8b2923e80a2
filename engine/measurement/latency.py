"""Latency of a compressed model compared with the original, measured where a kernel multiplies the
stored weights.

Both compute on the task's own inputs, in turns, so that a busy moment of the machine meets both.
The original's weights lie ready in the run's precision: nobody waits for their unpacking. Where no
kernel runs, the reason is all there is.
"""

import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.calibration.stream import hooked
from engine.evaluation.measured import judging
from engine.events import ProgressEvent
from engine.kernels import Kernel, NoKernel, kernel_of
from engine.kernels.narrower import Narrower, is_narrower
from engine.models.experts import routed_layers
from engine.models.loaded_model import Opened
from engine.models.packed_modules import Unpacking
from engine.recipe.tasks import Task
from engine.results.schema.tables import NAN, LatencyRow
from engine.step.run_context import Bench
from engine.tensors.sparse import NOfM
from engine.tensors.weights import Dense

MODEL_SECONDS, LAYERS_SECONDS = 1.5, 0.5  # set aside in one run; what does not fit is left out
LEAST, MOST = 3, 20  # repetitions
SHAPES = 4  # of layers that are timed, the largest
WORK = 2e10  # products of a pass that is still timed: a second or so
MODEL_BYTES = 1 << 30  # of ready weights: a larger model is timed layer by layer
MOST_NAMED = 3  # layers
NO_KERNEL = "No kernel here: {why}."

Inputs = dict[str, Any]  # of a model, by name; tensors have one example a row


# --- what goes in ---------------------------------------------------------------------------------


@contextmanager
def largest_inputs(model: nn.Module) -> Iterator[Inputs]:
    """Fills with the largest batch that the model gets inside."""
    largest: Inputs = {}

    def look(module: nn.Module, args: tuple, kwargs: dict) -> None:
        if not largest or main(kwargs).numel() > main(largest).numel():
            largest.update(kwargs)

    with hooked([model.register_forward_pre_hook(look, with_kwargs=True)]):
        yield largest


def main(inputs: Inputs) -> torch.Tensor:
    """Tokens (batch, tokens) or pictures (batch, channels, height, width)."""
    return inputs["input_ids"] if "input_ids" in inputs else inputs["pixel_values"]


@dataclass(frozen=True)
class Shape:
    """The first examples of the evaluation batch, or the first token alone."""

    examples: int
    words: str
    first_token: bool = False

    def cut(self, tensor: torch.Tensor) -> torch.Tensor:
        few = tensor[: self.examples]
        return few[:, :1] if self.first_token else few

    def of(self, inputs: Inputs) -> Inputs:
        return {
            name: self.cut(value) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }


def shapes_of(inputs: Inputs, task: Task) -> list[Shape]:
    """One example, the evaluation batch, and for a model that writes one token, as in writing."""
    batch = main(inputs)
    if batch.ndim == 4:
        return [
            Shape(count, f"{count} picture{'s' * (count > 1)}") for count in sorted({1, len(batch)})
        ]
    first = [Shape(1, "1 token", first_token=True)] if task.kind == "language-modeling" else []
    return [
        *first,
        *(Shape(count, f"{count} x {batch.shape[1]} tokens") for count in sorted({1, len(batch)})),
    ]


# --- what is timed --------------------------------------------------------------------------------


@dataclass
class Kernels:
    """The kernels of a compressed model's layers, and the reasons of those that have none."""

    found: dict[str, Kernel] = field(default_factory=dict)
    # reason -> layers
    missing: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, compressed: Opened, names: Iterable[str], original: Opened) -> "Kernels":
        kernels, before = cls(), dict(original.model.named_modules())
        for name in names:
            try:
                layer = compressed.model.get_submodule(name)
                if compressed.device.type != "cpu" and not isinstance(layer.stored, NOfM):
                    raise NoKernel(
                        f"this run computed on {compressed.device.type}, and all kernels "
                        "known here but that for 2:4 run on a CPU"
                    )
                kernels.found[name] = (
                    Narrower(layer, with_weight(layer, layer.compute))
                    if is_narrower(layer, before[name])
                    else kernel_of(layer)
                )
            except NoKernel as none:
                kernels.missing[str(none)].append(name)
        return kernels

    def reasons(self) -> Iterator[LatencyRow]:
        all_layers = len(self.found) + sum(map(len, self.missing.values()))
        for why, names in self.missing.items():
            which = f": {', '.join(names)}" if len(names) <= MOST_NAMED else f", such as {names[0]}"
            what = names[0] if len(names) == 1 else f"{len(names)} of {all_layers} layers{which}"
            yield LatencyRow(
                what,
                "compressed",
                "",
                "",
                0,
                torch.get_num_threads(),
                NAN,
                NAN,
                NAN,
                0,
                note=NO_KERNEL.format(why=why),
            )

    def without(self, precision: str) -> str:
        """A note on layers that no kernel runs."""
        missing = sum(map(len, self.missing.values()))
        return (
            (
                f"{missing} of {missing + len(self.found)} layers have no kernel and compute in "
                f"{precision}"
            )
            if missing
            else ""
        )

    @property
    def called(self) -> str:
        return " and ".join(dict.fromkeys(kernel.called for kernel in self.found.values()))

    @property
    def notes(self) -> list[str]:
        return list(dict.fromkeys(kernel.note for kernel in self.found.values() if kernel.note))


@dataclass(frozen=True)
class Pair:
    """The model before and after, and what both are given."""

    original: Opened
    compressed: Opened
    inputs: Inputs
    shapes: list[Shape]


def latency_rows(
    bench: Bench, original: Opened, compressed: Opened, names: list[str], inputs: Inputs
) -> list[LatencyRow]:
    """Latency of the whole model and of each layer; ``names`` are the compressed layers, some of
    which may have been removed.
    """
    # of another model's layers, none has a counterpart
    known = {layer.name for layer in original.layers}
    names, fewer = (
        [name for name in names if name in known],
        len(compressed.layers) < len(original.layers),
    )
    kernels = Kernels.of(
        compressed,
        [name for name in names if not fewer or is_changed(name, original, compressed)],
        original,
    )
    rows = list(kernels.reasons())
    if not kernels.found and not fewer:
        return rows
    pair = Pair(original, compressed, inputs, shapes_of(inputs, bench.recipe.task))
    with judging(original.model), judging(compressed.model):
        layers = list(layers_timed(bench, pair, kernels))
        models = list(model_rows(bench, pair, kernels)) if all(row.kernel for row in layers) else []
    return models + layers + rows


def is_changed(name: str, original: Opened, compressed: Opened) -> bool:
    """Return True if the layer still exists and is no longer dense at its original size; remaining
    blocks are renumbered.
    """
    one, other = (dict(opened.model.named_modules()).get(name) for opened in (original, compressed))
    return other is not None and (not isinstance(other.stored, Dense) or is_narrower(other, one))


def model_rows(bench: Bench, pair: Pair, kernels: Kernels) -> Iterator[LatencyRow]:
    """The whole model at every shape of inputs that does not take too long."""
    if pair.original.parameters * 8 > MODEL_BYTES:
        return
    before, after = pair.original.model, pair.compressed.model
    layers, clock = (
        (ready_layers(pair.original), ready_layers(pair.compressed) | kernels.found),
        Clock(MODEL_SECONDS, len(pair.shapes)),
    )
    weights = sum(layer.parameters for layer in pair.original.layers if layer.kind != "embedding")
    for done, shape in enumerate(pair.shapes):
        bench.progress(ProgressEvent("measuring-speed", done, len(pair.shapes)))
        given = shape.of(pair.inputs)
        if main(given).ndim == 2 and main(given).numel() * weights > WORK:
            continue
        simulated = after(**given).logits
        with replaced(before, layers[0]), replaced(after, layers[1]):
            off = difference(after(**given).logits, simulated)
            times = clock.in_turns(
                {"original": partial(before, **given), "compressed": partial(after, **given)}
            )
        if times:
            yield row(
                "whole model", "original", f"{precision(pair.original)} products", shape, times
            )
            yield row(
                "whole model",
                "compressed",
                kernels.called or f"{precision(pair.compressed)} products",
                shape,
                times,
                off,
                [*kernels.notes, kernels.without(precision(pair.compressed))],
            )


def layers_timed(bench: Bench, pair: Pair, kernels: Kernels) -> Iterator[LatencyRow]:
    """One layer of each shape, on what reaches it."""
    met = [
        reached(opened.model, kernels.found, pair.inputs)
        for opened in (pair.original, pair.compressed)
    ]
    chosen = one_of_each_shape(pair.compressed, kernels, set.intersection(*met))
    routed = routed_layers(pair.compressed.model, chosen)
    before, received = (
        inputs_of_layers(model, chosen, pair.inputs) for model in (pair.original, pair.compressed)
    )
    ready, clock = (
        ready_layers(pair.original, chosen),
        Clock(LAYERS_SECONDS, len(chosen) * len(pair.shapes)),
    )
    for done, name in enumerate(chosen):
        bench.progress(ProgressEvent("measuring-speed", done, len(chosen)))
        simulated = pair.compressed.model.get_submodule(name)
        for shape in pair.shapes:
            if name in routed and not shape.first_token:
                continue  # the shape does not tell how many tokens an expert gets
            given = Given(shape.cut(before[name]), shape.cut(received[name]))
            if given.after.ndim == 4 or given.before.numel() * ready[name].stored.shape[0] <= WORK:
                yield from layer_rows(
                    name, ready[name], kernels.found[name], simulated, shape, given, clock
                )


@dataclass(frozen=True)
class Given:
    """Inputs of a layer in the original and in the compressed model, which may be narrower."""

    before: torch.Tensor
    after: torch.Tensor


def layer_rows(
    name: str,
    ready: nn.Module,
    kernel: Kernel,
    simulated: nn.Module,
    shape: Shape,
    given: Given,
    clock: "Clock",
) -> Iterator[LatencyRow]:
    off = difference(kernel(given.after), simulated(given.after))
    if not off <= kernel.tolerance:
        why = f"{kernel.called} gives outputs that are {off:.2g} off on this processor"
        yield LatencyRow(
            name,
            "compressed",
            "",
            "",
            0,
            torch.get_num_threads(),
            NAN,
            NAN,
            NAN,
            0,
            off,
            NO_KERNEL.format(why=why),
        )
        return
    passes = {"original": partial(ready, given.before), "compressed": partial(kernel, given.after)}
    if ready.compute == torch.float32 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        passes["bfloat16"] = partial(with_weight(ready, torch.bfloat16), given.before.bfloat16())
    if times := clock.in_turns(passes):
        yield row(name, "original", f"{dtype_of(ready)} products", shape, times)
        if "bfloat16" in times:
            yield row(name, "original", "bfloat16 products", shape, {"original": times["bfloat16"]})
        yield row(name, "compressed", kernel.called, shape, times, off, [kernel.note])


def reached(model: nn.Module, names: Iterable[str], inputs: Inputs) -> set[str]:
    """Layers that run in a pass of the evaluation batch: all except experts without tokens."""
    found: set[str] = set()
    with hooked(
        [
            model.get_submodule(name).register_forward_pre_hook(
                lambda module, args, name=name: found.add(name)
            )
            for name in names
        ]
    ):
        model(**inputs)
    return found


def one_of_each_shape(compressed: Opened, kernels: Kernels, names: set[str]) -> list[str]:
    """First layer of each shape and kernel among ``names``, largest first."""
    first: dict[tuple, str] = {}
    for name, kernel in kernels.found.items():
        if name not in names:
            continue
        first.setdefault((type(kernel), compressed.model.get_submodule(name).kernel), name)
    sizes = {
        name: math.prod(compressed.model.get_submodule(name).kernel) for name in first.values()
    }
    return sorted(sizes, key=sizes.get, reverse=True)[:SHAPES]


def inputs_of_layers(
    compressed: Opened, names: list[str], inputs: Inputs
) -> dict[str, torch.Tensor]:
    """Inputs of these layers in one pass of the evaluation batch; flattened tokens are reshaped to
    examples again.
    """
    received: dict[str, torch.Tensor] = {}
    routed, examples = routed_layers(compressed.model, names), len(main(inputs))

    def noted(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple) -> None:
            rows = 1 if name in routed else examples
            flat = args[0].ndim == 2 and len(args[0]) % rows == 0
            received[name] = args[0].unflatten(0, (rows, -1)) if flat else args[0]

        return hook

    with hooked(
        [
            compressed.model.get_submodule(name).register_forward_pre_hook(noted(name))
            for name in names
        ]
    ):
        compressed.model(**inputs)
    return received


# --- both sides -----------------------------------------------------------------------------------


def ready_layers(opened: Opened, names: Iterable[str] = ()) -> dict[str, nn.Module]:
    """Layers, all of them unless named, whose weights are dense in the precision in which they
    compute. Tied ones share theirs.
    """
    made: dict[int, Dense] = {}
    modules = {
        name: module
        for name, module in opened.model.named_modules()
        if isinstance(module, Unpacking) and (not names or name in names)
    }
    return {name: with_weight(module, module.compute, made) for name, module in modules.items()}


def with_weight(
    module: Unpacking, dtype: torch.dtype, made: dict[int, Dense] | None = None
) -> Unpacking:
    """``module`` with its weight and bias ready in that precision. What its inputs were rounded to
    is gone with the stored weight.
    """
    other, made = copy.copy(module), {} if made is None else made
    # the copy would share the table that the bias stands in
    other._parameters = {
        name: None if value is None else nn.Parameter(value.to(dtype), False)
        for name, value in module._parameters.items()
    }
    key = id(module.stored)
    if key not in made:
        made[key] = Dense(module.stored.shape, module.stored.dense(dtype))
    other.stored, other.compute = made[key], dtype
    return other


@contextmanager
def replaced(model: nn.Module, modules: dict[str, nn.Module]) -> Iterator[None]:
    before = {name: model.get_submodule(name) for name in modules}
    try:
        for name, module in modules.items():
            place(model, name, module)
        yield
    finally:
        for name, module in before.items():
            place(model, name, module)


def place(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


# --- numbers --------------------------------------------------------------------------------------


class Clock:
    """Seconds that are shared out among what is still to be timed."""

    def __init__(self, seconds: float, shapes: int):
        self.end, self.shapes = time.perf_counter() + seconds, shapes

    def in_turns(self, passes: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
        """Milliseconds of each pass, one after the other and again, after one that does not count;
        nothing where time is up.
        """
        began = time.perf_counter()
        left, self.shapes = self.end - began, self.shapes - 1
        if left <= 0:
            return {}
        for run in passes.values():
            run()
        finished()
        once = time.perf_counter() - began
        if once * LEAST > 2 * left:
            return {}
        repeats = max(LEAST, min(MOST, int(left / (self.shapes + 1) / once)))
        times: dict[str, list[float]] = {name: [] for name in passes}
        for _ in range(repeats):
            for name, run in passes.items():
                began = time.perf_counter()
                run()
                finished()
                times[name].append(1000 * (time.perf_counter() - began))
        return times


def finished() -> None:
    """A GPU is given work and does it by and by."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def row(
    what: str,
    version: str,
    kernel: str,
    shape: Shape,
    times: dict[str, list[float]],
    off: float = NAN,
    notes: Iterable[str] = (),
) -> LatencyRow:
    low, median, high = np.quantile(times[version], (0.25, 0.5, 0.75)).tolist()
    note = "; ".join(note for note in notes if note)
    return LatencyRow(
        what,
        version,
        kernel,
        shape.words,
        shape.examples,
        torch.get_num_threads(),
        median,
        low,
        high,
        len(times[version]),
        off,
        note,
    )


def difference(outputs: torch.Tensor, due: torch.Tensor) -> float:
    return ((outputs.float() - due.float()).norm() / due.float().norm().clamp_min(1e-30)).item()


def precision(opened: Opened) -> str:
    return dtype_of(
        next(module for module in opened.model.modules() if isinstance(module, Unpacking))
    )


def dtype_of(module: Unpacking) -> str:
    return str(module.compute).removeprefix("torch.")
