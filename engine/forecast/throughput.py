"""Speed of this machine in short probes with the given model and technique.

The fastest of several calls counts, and time spent waiting for a core that other programs use does
not: a forecast is about an idle machine, and the page says if it is busy.
"""

import json
import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import wraps
from typing import TypeVar

import torch
from PIL import Image
from pydantic import TypeAdapter

from engine.calibration import Fold, Seen
from engine.calibration.gradient_stats import Slopes
from engine.config.registry import EVERY, Step
from engine.config.technique import Technique
from engine.evaluation.classification import channels_of, image_batches
from engine.evaluation.measured import judging
from engine.measurement.error import Judged, level_rows
from engine.models.layers import Layer
from engine.models.loaded_model import Opened
from engine.models.loading import Folder, image_processor_of, told
from engine.models.positions import usable_length
from engine.runtime.threads import one_thread
from engine.techniques.implementations import compress, scales_for

Result = TypeVar("Result")

PROBES, ENOUGH = 3, 0.5  # of one thing; seconds after which there are no more
PRODUCTS = 2e9  # of one probe of a model: a tenth of a second or so
ROWS, WIDTH, VECTORS = 64, 1024, 256  # of one probe of a layer
FRESH = 300  # seconds that a probe's answer is good for
TALLER = 4  # times as many rows, in a second probe
FOLD = Fold("", (), from_norm=True)


def quickest(run: Callable[[], object], probes: int = PROBES, least: int = 1) -> float:
    """Seconds of the quickest of a few calls; where they are slow, of fewer. The first one may have
    libraries to load: ``least`` 2 counts it out.
    """
    times: list[float] = []
    deadline = time.perf_counter() + ENOUGH
    while len(times) < least or (len(times) < probes and time.perf_counter() < deadline):
        times.append(idle_seconds(run)[0])
    return min(times)


def idle_seconds(run: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds of a call without waiting for a busy processor, and its result.

    The seconds are wall time, or the processor time of all threads if that is less. On a busy
    machine
    a call on n threads may so count up to n times.
    """
    wall, processor = time.perf_counter(), time.process_time()
    result = run()
    return min(time.perf_counter() - wall, time.process_time() - processor), result


def for_a_while(probe: Callable) -> Callable:
    """Cache a probe's result for FRESH seconds: a result of a busy machine should not
    outlast that.
    """
    found: dict[tuple, tuple[float, object]] = {}

    @wraps(probe)
    def remembered(*asked: Hashable) -> object:
        if asked not in found or time.monotonic() - found[asked][0] > FRESH:
            found[asked] = time.monotonic(), probe(*asked)
        return found[asked][1]

    return remembered


@for_a_while
def product_pace(dtype: torch.dtype = torch.float32) -> float:
    """Operations a second of a matrix product."""
    a = torch.randn(768, 768).to(dtype)
    return 2 * 768**3 / quickest(lambda: a @ a, 8)


# --- the model ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Passes:
    """Seconds of a forward pass of the original model: a part for each pass, and one for each token
    or picture.
    """

    each: float
    place: float

    def seconds(self, places: float, batches: float) -> float:
        return self.each * batches + self.place * places


_passes: dict[tuple, tuple[float, Passes]] = {}  # with when they were taken


def passes_of(key: tuple, at: Opened, folder: Folder, length: int) -> Passes:
    """``length``: tokens of one window or text. Measured again after FRESH seconds."""
    taken, found = _passes.get((*key, length), (-math.inf, None))
    if time.monotonic() - taken > FRESH:
        with told(folder, f"{folder} cannot run"):
            found = timed(at, folder, length)
        _passes[*key, length] = time.monotonic(), found
    return found


def timed(at: Opened, folder: Folder, length: int) -> Passes:
    one, many = (
        probe_inputs(at, folder, 1, 1),
        probe_inputs(at, folder, length, PRODUCTS / weights_of(at.layers)),
    )
    with judging(at.model):
        short, long = (
            least_seconds(lambda given=given: at.model(**given)) for given in (one, many)
        )
    more = places_in(many) - places_in(one)
    place = max(0.0, long - short) / more if more else short
    return Passes(max(0.0, short - place), place + preparing(at, folder))


def least_seconds(run: Callable[[], object]) -> float:
    """Seconds of the quickest call with all threads or with one.

    On a busy machine, threads that wait for each other use processor time; one thread does not.
    """
    seconds = quickest(run)
    if torch.get_num_threads() > 1:
        with one_thread():
            seconds = min(seconds, quickest(run))
    return seconds


def preparing(at: Opened, folder: Folder) -> float:
    """Seconds in which one picture is made ready for the model; texts are quick."""
    if folder.kind != "image-classification":
        return 0.0
    return quickest(lambda: probe_inputs(at, folder, 1, 16)) / 16


def weights_of(layers: list[Layer]) -> int:
    """Weights that process every token."""
    return max(1, sum(layer.parameters for layer in layers if layer.kind != "embedding"))


def probe_inputs(at: Opened, folder: Folder, length: int, places: float) -> dict[str, torch.Tensor]:
    """Inputs of ``places`` tokens in windows of at most ``length``, or images; at least one."""
    if folder.kind == "image-classification":
        pictures = [Image.new("RGB", (32, 32))] * max(1, min(64, int(places)))
        return next(
            iter(
                image_batches(
                    pictures,
                    image_processor_of(folder),
                    channels_of(at.model.config),
                    len(pictures),
                )
            )
        )[1]
    window = max(1, min(length, int(places), usable_length(at.model.config) or length))
    rows = max(1, min(2048, int(places)) // window)
    if (
        getattr(at.model.config, "pad_token_id", None) is None
        and folder.kind != "language-modeling"
    ):
        rows = 1
    vocabulary = at.model.config.get_text_config().vocab_size
    return {"input_ids": torch.randint(vocabulary // 2, vocabulary, (rows, window))}


def places_in(inputs: dict[str, torch.Tensor]) -> int:
    return inputs["input_ids"].numel() if "input_ids" in inputs else len(inputs["pixel_values"])


# --- the technique --------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerPace:
    """Seconds of what is done to one layer."""

    once: float = 0.0  # for layers that share an input: factorizing its Gram matrix
    scale: float = 0.0  # searching scales, a row of the weight
    compress: float = 0.0  # a row
    judge: float = 0.0  # a row: errors, histograms
    unpack: float = 0.0  # a row, each time the layer runs
    receive: float = 0.0  # an input vector, each time it runs
    # compressing and searching, however many rows there are: their steps from column to column
    start: float = 0.0

    def widened(self, times: float, power: int) -> "LayerPace":
        return LayerPace(
            self.once * times**3,
            *(value * times**power for value in (self.scale, self.compress)),
            *(value * times for value in (self.judge, self.unpack, self.receive, self.start)),
        )


def layer_pace(how: Technique, in_: int) -> LayerPace:
    """Speed of a layer with rows of ``in_`` weights; wide ones are extrapolated from narrower
    ones.
    """
    width = min(in_, WIDTH)
    return probed(
        how.model_dump_json(),
        type(how) if type(how) not in EVERY else None,  # a variant that a technique tries
        width,
    ).widened(in_ / width, 2 if how.needs == "gram" else 1)


@for_a_while
def probed(fields: str, known: type[Technique] | None, width: int) -> LayerPace:
    how = known(**json.loads(fields)) if known else TypeAdapter(Step).validate_json(fields)
    weight = torch.randn(ROWS, width)
    seen = None if how.needs == "nothing" else probe_seen(how, width)
    given = (how, weight) if seen is None else (how, weight, seen)
    first, stored = idle_seconds(lambda: compress(*given))
    again, start = by_rows(
        lambda tall: quickest(lambda: compress(how, *([tall] if seen is None else [tall, seen]))),
        weight,
        how,
    )
    scale, search = (
        by_rows(lambda tall: quickest(lambda: scales_for(how, FOLD, [tall], seen), 1), weight, how)
        if how.folds
        else (0.0, 0.0)
    )
    judged = Judged(Layer("probe", "linear", tuple(weight.shape), 4, ""), weight, stored.dense())
    vectors = torch.randn(VECTORS, width)
    rows = [quickest(lambda: looked(judged, stored, how)), quickest(stored.dense)]
    return LayerPace(
        max(0.0, first - start - ROWS * again) if how.needs == "gram" else 0.0,
        scale,
        again,
        *(value / ROWS for value in rows),
        quickest(lambda: stored.received(vectors)) / VECTORS,
        start + search,
    )


def by_rows(
    seconds: Callable[[torch.Tensor], float], weight: torch.Tensor, how: Technique
) -> tuple[float, float]:
    """Seconds of a row, and of what is done once for all rows: where a method goes from column to
    column, a few rows take as long as many.

    Others are taken to grow with their rows alone, and one that looks at gradients has them for
    these
    rows only.
    """
    few = seconds(weight)
    if how.needs not in ("range", "gram"):
        return few / len(weight), 0.0
    # never nothing: a probe may be held up
    more = max(seconds(weight.repeat(TALLER, 1)) - few, 0.01 * few)
    each = more / (len(weight) * (TALLER - 1))
    return each, max(0.0, few - len(weight) * each)


def probe_seen(how: Technique, width: int) -> Seen | Slopes:
    if how.needs == "gradients":
        return Slopes(torch.randn(ROWS, width), torch.rand(ROWS, width))
    seen = Seen(width, torch.device("cpu"), wants_gram=how.needs == "gram")
    for _ in range(2):
        seen.add(torch.randn(width, width))
    return seen


def looked(judged: Judged, stored: object, how: Technique) -> None:
    judged.row(stored, how.technique)
    judged.channels()
    list(judged.histogram())
    level_rows("probe", stored)
