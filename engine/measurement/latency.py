"""Latency of a compressed model compared with the original, measured where a kernel multiplies the
stored weights.

Both run on the task's own inputs in alternation, so that a busy moment of the machine affects both.
The original's weights are unpacked in the run's precision before timing. Where no kernel runs, the
table holds the reason instead of times.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.evaluation.measured import evaluation_mode
from engine.events import ProgressEvent
from engine.kernels import Kernel
from engine.kernels.narrower import is_narrower
from engine.measurement.interleaved_timing import TimeBudget
from engine.measurement.latency_inputs import (
    Inputs,
    Shape,
    input_shapes,
    layer_batch_inputs,
    main,
    reached_layers,
)
from engine.measurement.layer_kernels import NO_KERNEL, Kernels
from engine.measurement.ready_layers import dense_layers, swap_modules, with_dense_weight
from engine.models.loaded_model import LoadedModel
from engine.models.packed_modules import Unpacking
from engine.models.routed_layers import routed_layers
from engine.results.schema.tables import NAN, LatencyRow
from engine.step.run_context import RunContext
from engine.tensors.weights import DenseWeight

MODEL_SECONDS, LAYERS_SECONDS = 1.5, 0.5  # seconds of one run; shapes beyond that are skipped
SHAPES = 4  # maximum number of timed layers, largest first
WORK = 2e10  # products of the largest timed pass, about a second
MODEL_BYTES = 1 << 30  # bytes of unpacked weights; a larger model is timed layer by layer


@dataclass(frozen=True)
class ModelPair:
    """The model before and after, and the inputs of both."""

    original: LoadedModel
    compressed: LoadedModel
    inputs: Inputs
    shapes: list[Shape]


def latency_rows(
    context: RunContext,
    original: LoadedModel,
    compressed: LoadedModel,
    names: list[str],
    inputs: Inputs,
) -> list[LatencyRow]:
    """Latency of the whole model and of each layer; ``names`` are the compressed layers, some of
    which may have been removed.
    """
    # layers of a replacement model have no counterpart
    original_names = {layer.name for layer in original.layers}
    names, removed = (
        [name for name in names if name in original_names],
        len(compressed.layers) < len(original.layers),
    )
    kernels = Kernels.of(
        compressed,
        [name for name in names if not removed or is_changed(name, original, compressed)],
        original,
    )
    rows = list(kernels.reasons())
    if not kernels.found and not removed:
        return rows
    pair = ModelPair(original, compressed, inputs, input_shapes(inputs, context.recipe.task))
    with evaluation_mode(original.model), evaluation_mode(compressed.model):
        layers = list(layer_latency_rows(context, pair, kernels))
        models = (
            list(model_latency_rows(context, pair, kernels))
            if all(row.kernel for row in layers)
            else []
        )
    return models + layers + rows


def is_changed(name: str, original: LoadedModel, compressed: LoadedModel) -> bool:
    """Return True if the layer still exists and is no longer dense at its original size; remaining
    blocks are renumbered.
    """
    one, other = (dict(opened.model.named_modules()).get(name) for opened in (original, compressed))
    return other is not None and (
        not isinstance(other.stored, DenseWeight) or is_narrower(other, one)
    )


def model_latency_rows(
    context: RunContext, pair: ModelPair, kernels: Kernels
) -> Iterator[LatencyRow]:
    """Timings of the whole model for each input shape that is not too slow."""
    if pair.original.parameters * 8 > MODEL_BYTES:
        return
    before, after = pair.original.model, pair.compressed.model
    layers, clock = (
        (dense_layers(pair.original), dense_layers(pair.compressed) | kernels.found),
        TimeBudget(MODEL_SECONDS, len(pair.shapes)),
    )
    weights = sum(layer.parameters for layer in pair.original.layers if layer.kind != "embedding")
    for done, shape in enumerate(pair.shapes):
        context.progress(ProgressEvent("measuring-speed", done, len(pair.shapes)))
        given = shape.select_inputs(pair.inputs)
        if main(given).ndim == 2 and main(given).numel() * weights > WORK:
            continue
        simulated = after(**given).logits
        with swap_modules(before, layers[0]), swap_modules(after, layers[1]):
            difference = relative_difference(after(**given).logits, simulated)
            times = clock.alternating_times(
                {"original": partial(before, **given), "compressed": partial(after, **given)}
            )
        if times:
            yield latency_row(
                "whole model",
                "original",
                f"{compute_precision(pair.original)} products",
                shape,
                times,
            )
            yield latency_row(
                "whole model",
                "compressed",
                kernels.kernel_names or f"{compute_precision(pair.compressed)} products",
                shape,
                times,
                difference,
                [*kernels.notes, kernels.without(compute_precision(pair.compressed))],
            )


def layer_latency_rows(
    context: RunContext, pair: ModelPair, kernels: Kernels
) -> Iterator[LatencyRow]:
    """Timings of one layer of each shape, on its own inputs."""
    met = [
        reached_layers(opened.model, kernels.found, pair.inputs)
        for opened in (pair.original, pair.compressed)
    ]
    chosen = one_of_each_shape(pair.compressed, kernels, set.intersection(*met))
    routed = routed_layers(pair.compressed.model, chosen)
    before, received = (
        layer_batch_inputs(model, chosen, pair.inputs) for model in (pair.original, pair.compressed)
    )
    ready, clock = (
        dense_layers(pair.original, chosen),
        TimeBudget(LAYERS_SECONDS, len(chosen) * len(pair.shapes)),
    )
    for done, name in enumerate(chosen):
        context.progress(ProgressEvent("measuring-speed", done, len(chosen)))
        simulated = pair.compressed.model.get_submodule(name)
        for shape in pair.shapes:
            if name in routed and not shape.first_token:
                continue  # the shape does not determine how many tokens an expert gets
            given = LayerInputs(shape.select(before[name]), shape.select(received[name]))
            if given.after.ndim == 4 or given.before.numel() * ready[name].stored.shape[0] <= WORK:
                yield from one_layer_latency_rows(
                    name, ready[name], kernels.found[name], simulated, shape, given, clock
                )


@dataclass(frozen=True)
class LayerInputs:
    """Inputs of a layer in the original and in the compressed model, which may be narrower."""

    before: torch.Tensor
    after: torch.Tensor


def one_layer_latency_rows(
    name: str,
    dense_layer: nn.Module,
    kernel: Kernel,
    simulated: nn.Module,
    shape: Shape,
    layer_inputs: LayerInputs,
    clock: "TimeBudget",
) -> Iterator[LatencyRow]:
    difference = relative_difference(kernel(layer_inputs.after), simulated(layer_inputs.after))
    if not difference <= kernel.tolerance:
        reason = (
            f"{kernel.display_name} gives outputs that are {difference:.2g} off on this processor"
        )
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
            difference,
            NO_KERNEL.format(why=reason),
        )
        return
    passes = {
        "original": partial(dense_layer, layer_inputs.before),
        "compressed": partial(kernel, layer_inputs.after),
    }
    if dense_layer.compute == torch.float32 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        passes["bfloat16"] = partial(
            with_dense_weight(dense_layer, torch.bfloat16), layer_inputs.before.bfloat16()
        )
    if times := clock.alternating_times(passes):
        yield latency_row(
            name, "original", f"{compute_dtype_name(dense_layer)} products", shape, times
        )
        if "bfloat16" in times:
            yield latency_row(
                name, "original", "bfloat16 products", shape, {"original": times["bfloat16"]}
            )
        yield latency_row(
            name, "compressed", kernel.display_name, shape, times, difference, [kernel.note]
        )


def one_of_each_shape(compressed: LoadedModel, kernels: Kernels, names: set[str]) -> list[str]:
    """First layer of each shape and kernel among ``names``, largest first."""
    first: dict[tuple[Any, ...], str] = {}
    for name, kernel in kernels.found.items():
        if name not in names:
            continue
        first.setdefault((type(kernel), compressed.model.get_submodule(name).kernel), name)
    sizes = {
        name: math.prod(compressed.model.get_submodule(name).kernel) for name in first.values()
    }
    return sorted(sizes, key=sizes.get, reverse=True)[:SHAPES]


def latency_row(
    what: str,
    version: str,
    kernel: str,
    shape: Shape,
    times: dict[str, list[float]],
    difference: float = NAN,
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
        difference,
        note,
    )


def relative_difference(outputs: torch.Tensor, reference: torch.Tensor) -> float:
    return (
        (outputs.float() - reference.float()).norm() / reference.float().norm().clamp_min(1e-30)
    ).item()


def compute_precision(loaded: LoadedModel) -> str:
    return compute_dtype_name(
        next(module for module in loaded.model.modules() if isinstance(module, Unpacking))
    )


def compute_dtype_name(module: Unpacking) -> str:
    return str(module.compute).removeprefix("torch.")
