"""How quick this machine is, in short probes with the model and the technique at hand; of several the quickest counts.

Probes meet the same crowd on the machine as a run would, but for that they are too short to be held up by chance each time.
"""

import json
import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import wraps

import torch
from PIL import Image
from pydantic import TypeAdapter

from engine.catalog import Step
from engine.catalog.technique import Technique
from engine.work.calibration import Fold, Seen
from engine.work.calibration.gradients import Slopes
from engine.work.layers import Layer
from engine.work.measure.error import Judged, level_rows
from engine.work.methods import compress, scales_for
from engine.work.models import Folder, image_processor_of
from engine.work.opened import Opened
from engine.work.tasks.classification import channels_of, image_batches
from engine.work.tasks.measured import judging
from engine.work.tasks.tokens import positions

PROBES, ENOUGH = 3, 0.5  # of one thing; seconds after which there are no more
PRODUCTS = 2e9  # of one probe of a model: a tenth of a second or so
ROWS, WIDTH, VECTORS = 64, 1024, 256  # of one probe of a layer
FRESH = 300  # seconds that a probe's answer is good for
TALLER = 4  # times as many rows, in a second probe
FOLD = Fold("", (), from_norm=True)


def quickest(run: Callable[[], object], probes: int = PROBES, least: int = 1) -> float:
    """Seconds of the quickest of a few calls; where they are slow, of fewer. The first one may have libraries to load: ``least`` 2 counts it out."""
    times: list[float] = []
    while len(times) < least or (len(times) < probes and sum(times) < ENOUGH):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def for_a_while(probe: Callable) -> Callable:
    """Remembers what a probe found for FRESH seconds: what it found on a busy machine should not outlast that."""
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


# --- the model -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Passes:
    """Seconds of a forward pass of the original model: a part for each pass, and one for each token or picture."""

    each: float
    place: float

    def seconds(self, places: float, batches: float) -> float:
        return self.each * batches + self.place * places


_passes: dict[tuple, tuple[float, Passes]] = {}  # with when they were taken


def passes_of(key: tuple, at: Opened, folder: Folder, length: int) -> Passes:
    """``length``: tokens of one window or text. Taken anew once they are FRESH seconds old."""
    taken, found = _passes.get((*key, length), (-math.inf, None))
    if time.monotonic() - taken > FRESH:
        found = timed(at, folder, length)
        _passes[*key, length] = time.monotonic(), found
    return found


def timed(at: Opened, folder: Folder, length: int) -> Passes:
    one, many = probe_inputs(at, folder, 1, 1), probe_inputs(at, folder, length, PRODUCTS / weights_of(at.layers))
    with judging(at.model):
        short, long = (quickest(lambda given=given: at.model(**given)) for given in (one, many))
    more = places_in(many) - places_in(one)
    place = max(0.0, long - short) / more if more else short
    return Passes(max(0.0, short - place), place + preparing(at, folder))


def preparing(at: Opened, folder: Folder) -> float:
    """Seconds in which one picture is made ready for the model; texts are quick."""
    if folder.kind != "image-classification":
        return 0.0
    return quickest(lambda: probe_inputs(at, folder, 1, 16)) / 16


def weights_of(layers: list[Layer]) -> int:
    """Those that every token meets."""
    return max(1, sum(layer.parameters for layer in layers if layer.kind != "embedding"))


def probe_inputs(at: Opened, folder: Folder, length: int, places: float) -> dict[str, torch.Tensor]:
    """As many as ``places`` tokens in windows of at most ``length``, or pictures; at least one."""
    if folder.kind == "image-classification":
        pictures = [Image.new("RGB", (32, 32))] * max(1, min(64, int(places)))
        return next(iter(image_batches(pictures, image_processor_of(folder), channels_of(at.model.config), len(pictures))))[1]
    window = max(1, min(length, int(places), positions(at.model.config) or length))
    rows = max(1, min(2048, int(places)) // window)
    if getattr(at.model.config, "pad_token_id", None) is None and folder.kind != "language-modeling":
        rows = 1
    vocabulary = at.model.config.get_text_config().vocab_size
    return {"input_ids": torch.randint(vocabulary // 2, vocabulary, (rows, window))}


def places_in(inputs: dict[str, torch.Tensor]) -> int:
    return inputs["input_ids"].numel() if "input_ids" in inputs else len(inputs["pixel_values"])


# --- the technique ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerPace:
    """Seconds of what is done to one layer."""

    once: float = 0.0  # for layers that share an input: factorizing its Gram matrix
    scale: float = 0.0  # searching scales, a row of the weight
    compress: float = 0.0  # a row
    judge: float = 0.0  # a row: errors, histograms
    unpack: float = 0.0  # a row, each time the layer runs
    receive: float = 0.0  # an input vector, each time it runs
    start: float = 0.0  # compressing and searching, however many rows there are: their steps from column to column

    def widened(self, times: float, power: int) -> "LayerPace":
        return LayerPace(self.once * times**3, *(value * times**power for value in (self.scale, self.compress)),
                         *(value * times for value in (self.judge, self.unpack, self.receive, self.start)))  # fmt: skip


def layer_pace(how: Technique, in_: int) -> LayerPace:
    """Of a layer with rows of ``in_`` weights; wide ones are reckoned from narrower ones."""
    width = min(in_, WIDTH)
    return probed(how.model_dump_json(), type(how) if type(how).__module__.startswith("engine.work") else None, width).widened(
        in_ / width, 2 if how.needs == "gram" else 1
    )


@for_a_while
def probed(fields: str, known: type[Technique] | None, width: int) -> LayerPace:
    how = known(**json.loads(fields)) if known else TypeAdapter(Step).validate_json(fields)
    weight = torch.randn(ROWS, width)
    seen = None if how.needs == "nothing" else probe_seen(how, width)
    given = (how, weight) if seen is None else (how, weight, seen)
    began = time.perf_counter()
    stored = compress(*given)
    first = time.perf_counter() - began
    again, start = by_rows(lambda tall: quickest(lambda: compress(how, *([tall] if seen is None else [tall, seen]))), weight, how)
    scale, search = by_rows(lambda tall: quickest(lambda: scales_for(how, FOLD, [tall], seen), 1), weight, how) if how.folds else (0.0, 0.0)
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


def by_rows(seconds: Callable[[torch.Tensor], float], weight: torch.Tensor, how: Technique) -> tuple[float, float]:
    """Seconds of a row, and of what is done once for all rows: where a method goes from column to column, a few rows take as long as many.

    Others are taken to grow with their rows alone, and one that looks at slopes has them for these rows only.
    """
    few = seconds(weight)
    if how.needs not in ("range", "gram"):
        return few / len(weight), 0.0
    more = max(seconds(weight.repeat(TALLER, 1)) - few, 0.01 * few)  # never nothing: a probe may be held up
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
