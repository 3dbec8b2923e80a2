"""Throughput of this machine, measured by short probes of the given model and technique. The
fastest of several calls counts, without time spent waiting for cores that other programs use: a
forecast assumes an idle machine, and the page says if it is busy.
"""

import json
import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import torch
from PIL import Image
from pydantic import TypeAdapter

from engine.calibration import Fold, InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.config.registry import ALL_TECHNIQUES, Step
from engine.config.technique import Technique
from engine.evaluation.classification import image_batches, image_channels
from engine.evaluation.measured import evaluation_mode
from engine.measurement.error import LayerComparison, level_rows
from engine.models.layers import Layer
from engine.models.loaded_model import LoadedModel
from engine.models.loading import ModelSource, explain_load_errors, image_processor_of
from engine.models.positions import usable_length
from engine.runtime.threads import one_thread
from engine.techniques.implementations import compress, input_scales

Result = TypeVar("Result")

PROBES, ENOUGH = 3, 0.5  # calls of one probe; seconds after which no further call starts
PRODUCTS = 2e9  # products of one probe of a model, about a tenth of a second
ROWS, WIDTH, VECTORS = 64, 1024, 256  # shape of one probe of a layer
FRESH = 300  # seconds for which a probe's result is cached
TALLER = 4  # factor of rows in a second probe
FOLD = Fold("", (), from_norm=True)


def best_of(run: Callable[[], object], probes: int = PROBES, min_probes: int = 1) -> float:
    """Seconds of the fastest of several calls, fewer if they are slow. The first call may import
    libraries; ``min_probes=2`` excludes it.
    """
    times: list[float] = []
    deadline = time.perf_counter() + ENOUGH
    while len(times) < min_probes or (len(times) < probes and time.perf_counter() < deadline):
        times.append(idle_seconds(run)[0])
    return min(times)


def idle_seconds(run: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds of a call without waiting for a busy processor, and its result. The
    seconds are wall time, or the processor time of all threads if that is less. On a busy machine a
    call with n threads may therefore count up to n times.
    """
    wall_start, processor_start = time.perf_counter(), time.process_time()
    result = run()
    return min(time.perf_counter() - wall_start, time.process_time() - processor_start), result


def cached_for_a_while(probe: Callable[..., Any]) -> Callable[..., Any]:
    """Cache a probe's result for FRESH seconds, because it may come from a busy machine."""
    found: dict[tuple[Any, ...], tuple[float, object]] = {}

    @wraps(probe)
    def cached_probe(*arguments: Hashable) -> object:
        if arguments not in found or time.monotonic() - found[arguments][0] > FRESH:
            found[arguments] = time.monotonic(), probe(*arguments)
        return found[arguments][1]

    return cached_probe


@cached_for_a_while
def products_per_second(dtype: torch.dtype = torch.float32) -> float:
    """Operations per second of a matrix product."""
    a = torch.randn(768, 768).to(dtype)
    return 2 * 768**3 / best_of(lambda: a @ a, 8)


# --- the model ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ForwardTiming:
    """Seconds of a forward pass of the original model: a constant per pass, and a part per token or
    image.
    """

    per_pass: float
    per_position: float

    def seconds(self, positions: float, batches: float) -> float:
        return self.per_pass * batches + self.per_position * positions


_passes: dict[tuple[Any, ...], tuple[float, ForwardTiming]] = {}  # with the time of measurement


def forward_timing(
    key: tuple[Any, ...], loaded: LoadedModel, folder: ModelSource, length: int
) -> ForwardTiming:
    """Timing of the model, measured again after FRESH seconds. ``length``: tokens of one window or
    text.
    """
    measured_at, found = _passes.get((*key, length), (-math.inf, None))
    if time.monotonic() - measured_at > FRESH:
        with explain_load_errors(folder, f"{folder} cannot run"):
            found = measured_timing(loaded, folder, length)
        _passes[*key, length] = time.monotonic(), found
    return found


def measured_timing(loaded: LoadedModel, folder: ModelSource, length: int) -> ForwardTiming:
    single_input, batch_inputs = (
        probe_inputs(loaded, folder, 1, 1),
        probe_inputs(loaded, folder, length, PRODUCTS / processing_weights(loaded.layers)),
    )
    with evaluation_mode(loaded.model):
        short, long = (
            least_seconds(lambda given=given: loaded.model(**given))
            for given in (single_input, batch_inputs)
        )
    more = place_count(batch_inputs) - place_count(single_input)
    position_seconds = max(0.0, long - short) / more if more else short
    return ForwardTiming(
        max(0.0, short - position_seconds), position_seconds + preparation_seconds(loaded, folder)
    )


def least_seconds(run: Callable[[], object]) -> float:
    """Seconds of the fastest call with all threads or with one. On a busy machine, threads that
    wait for each other use processor time; a single thread does not.
    """
    seconds = best_of(run)
    if torch.get_num_threads() > 1:
        with one_thread():
            seconds = min(seconds, best_of(run))
    return seconds


def preparation_seconds(loaded: LoadedModel, folder: ModelSource) -> float:
    """Seconds for preprocessing one image; texts are fast."""
    if folder.kind != "image-classification":
        return 0.0
    return best_of(lambda: probe_inputs(loaded, folder, 1, 16)) / 16


def processing_weights(layers: list[Layer]) -> int:
    """Weights that process every token."""
    return max(1, sum(layer.parameters for layer in layers if layer.kind != "embedding"))


def probe_inputs(
    loaded: LoadedModel, folder: ModelSource, length: int, positions: float
) -> dict[str, torch.Tensor]:
    """Model inputs with this number of positions, in windows of at most ``length``, or images; at
    least one example.
    """
    if folder.kind == "image-classification":
        images = [Image.new("RGB", (32, 32))] * max(1, min(64, int(positions)))
        return next(
            iter(
                image_batches(
                    images,
                    image_processor_of(folder),
                    image_channels(loaded.model.config),
                    len(images),
                )
            )
        )[1]
    window = max(1, min(length, int(positions), usable_length(loaded.model.config) or length))
    rows = max(1, min(2048, int(positions)) // window)
    if (
        getattr(loaded.model.config, "pad_token_id", None) is None
        and folder.kind != "language-modeling"
    ):
        rows = 1
    vocabulary = loaded.model.config.get_text_config().vocab_size
    return {"input_ids": torch.randint(vocabulary // 2, vocabulary, (rows, window))}


def place_count(inputs: dict[str, torch.Tensor]) -> int:
    return inputs["input_ids"].numel() if "input_ids" in inputs else len(inputs["pixel_values"])


# --- the technique --------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerTiming:
    """Seconds for compressing one layer."""

    once: float = 0.0  # for layers with a common input: factorizing its Gram matrix
    scale: float = 0.0  # searching scales, per row of the weight
    compress: float = 0.0  # a row
    judge: float = 0.0  # per row: errors, histograms
    unpack: float = 0.0  # per row, each time the layer runs
    receive: float = 0.0  # per input vector, each time the layer runs
    # compressing and searching, independent of the number of rows: the steps from column to column
    start: float = 0.0

    def scaled_to_width(self, times: float, power: int) -> "LayerTiming":
        return LayerTiming(
            self.once * times**3,
            *(value * times**power for value in (self.scale, self.compress)),
            *(value * times for value in (self.judge, self.unpack, self.receive, self.start)),
        )


def layer_timing(config: Technique, in_: int) -> LayerTiming:
    """Speed of a layer with rows of ``in_`` weights; wide ones are extrapolated from narrower
    ones.
    """
    width = min(in_, WIDTH)
    return probed_timing(
        config.model_dump_json(),
        type(config)
        if type(config) not in ALL_TECHNIQUES
        else None,  # variant that a technique tries
        width,
    ).scaled_to_width(in_ / width, 2 if config.needs == "gram" else 1)


@cached_for_a_while
def probed_timing(fields: str, known: type[Technique] | None, width: int) -> LayerTiming:
    config = known(**json.loads(fields)) if known else TypeAdapter(Step).validate_json(fields)
    weight = torch.randn(ROWS, width)
    stats = None if config.needs == "nothing" else probe_stats(config, width)
    given = (config, weight) if stats is None else (config, weight, stats)
    first, stored = idle_seconds(lambda: compress(*given))
    again, start = row_and_fixed_seconds(
        lambda weight: best_of(
            lambda: compress(config, *([weight] if stats is None else [weight, stats]))
        ),
        weight,
        config,
    )
    scale, search = (
        row_and_fixed_seconds(
            lambda weight: best_of(lambda: input_scales(config, FOLD, [weight], stats), 1),
            weight,
            config,
        )
        if config.rescales_inputs
        else (0.0, 0.0)
    )
    comparison = LayerComparison(
        Layer("probe", "linear", tuple(weight.shape), 4, ""), weight, stored.to_dense()
    )
    vectors = torch.randn(VECTORS, width)
    rows = [best_of(lambda: compare_layer(comparison, stored, config)), best_of(stored.to_dense)]
    return LayerTiming(
        max(0.0, first - start - ROWS * again) if config.needs == "gram" else 0.0,
        scale,
        again,
        *(value / ROWS for value in rows),
        best_of(lambda: stored.quantized_inputs(vectors)) / VECTORS,
        start + search,
    )


def row_and_fixed_seconds(
    seconds: Callable[[torch.Tensor], float], weight: torch.Tensor, config: Technique
) -> tuple[float, float]:
    """Seconds per row, and seconds independent of the number of rows: if a method proceeds column
    by column, a few rows take as long as many. For other methods the time is assumed to be
    proportional to the rows; methods with gradients get them for these rows only.
    """
    small_seconds = seconds(weight)
    if config.needs not in ("range", "gram"):
        return small_seconds / len(weight), 0.0
    # never zero: a probe may be delayed
    more = max(seconds(weight.repeat(TALLER, 1)) - small_seconds, 0.01 * small_seconds)
    row_seconds = more / (len(weight) * (TALLER - 1))
    return row_seconds, max(0.0, small_seconds - len(weight) * row_seconds)


def probe_stats(config: Technique, width: int) -> InputStats | GradientStats:
    if config.needs == "gradients":
        return GradientStats(torch.randn(ROWS, width), torch.rand(ROWS, width))
    stats = InputStats(width, torch.device("cpu"), wants_gram=config.needs == "gram")
    for _ in range(2):
        stats.add(torch.randn(width, width))
    return stats


def compare_layer(comparison: LayerComparison, stored: object, config: Technique) -> None:
    comparison.row(stored, config.technique)
    comparison.channels()
    list(comparison.histogram())
    level_rows("probe", stored)
