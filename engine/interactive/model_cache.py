"""Models that a worker keeps open between questions, and results computed from them."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pandas as pd
import torch

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.errors import PlainError
from engine.evaluation import calibration_batches
from engine.evaluation.calibration_batches import Batch
from engine.measurement.spectrum import spectrum
from engine.models.layers import Layer
from engine.models.loaded_model import LoadedModel, load_model
from engine.models.loading import (
    ModelSource,
    check_finite,
    explain_load_errors,
    resolve_model,
    tokenizer_of,
)
from engine.recipe import Recipe
from engine.recipe.tasks import Calibration
from engine.results.schema.tables import SpectrumRow, table
from engine.step.compressed_layer import LIVE_SAMPLES
from engine.techniques.low_rank.ranks import LayerEnergy
from engine.tensors.weights import StoredWeight

# weights compared while a control is dragged; the first rows of larger layers
LIVE_WEIGHTS = 1 << 21
Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Cache of the values used last, up to ``capacity`` in total size, and at least one."""

    def __init__(self, capacity: int, size: Callable[[Value], int] = lambda value: 1):
        self.capacity, self.size = capacity, size
        self.values: OrderedDict[Hashable, Value] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        return self.values.get(key)

    def keep(self, key: Hashable, value: Value) -> Value:
        """Add a value, and drop the least recently used ones beyond the capacity."""
        self.values[key] = value
        self.values.move_to_end(key)
        while len(self.values) > 1 and sum(map(self.size, self.values.values())) > self.capacity:
            self.values.popitem(last=False)
        return value

    def get_or_make(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of a key, made only if it is not cached."""
        if key not in self.values:
            return self.keep(key, make())
        self.values.move_to_end(key)
        return self.values[key]


@dataclass(frozen=True)
class CachedModel:
    """A model opened on the CPU. Its key changes when its files change."""

    key: tuple[str, str]  # reference and revision
    folder: ModelSource
    opened: LoadedModel
    opening_seconds: float

    def layer(self, name: str) -> Layer:
        """Return the layer with this name.

        Raises PlainError if no layer has this name.
        """
        layer = next((layer for layer in self.opened.layers if layer.name == name), None)
        if layer is None:
            raise PlainError(
                f"The model has no layer called {name[:80]!r}; choose one from the list."
            )
        return layer

    def stored_weight(self, layer: Layer) -> StoredWeight:
        return self.opened.model.get_submodule(layer.name).stored

    def weight(self, layer: Layer) -> torch.Tensor:
        """(out, in_) float32"""
        return self.stored_weight(layer).to_dense()


class ModelCache:
    """Data that a worker keeps in memory between questions, each kind up to a limit."""

    def __init__(self) -> None:
        self.models: Recent[CachedModel] = Recent(3)
        self.first_rows_kept: Recent[torch.Tensor] = Recent(8)  # at most 8 MB each
        self.spectra: Recent[pd.DataFrame] = Recent(256)
        # bytes of statistics of layer inputs, gradients, and scores of structures
        self.statistics: Recent[Any] = Recent(500_000_000, tensor_bytes)
        self.previews: Recent[Any] = Recent(2)  # layers as a step would store them
        self.rank_spectra: Recent[dict[str, LayerEnergy]] = Recent(4)  # of all layers of a model

    def model(self, reference: str) -> CachedModel:
        """Open a model, or return it if it is open and its files have not changed."""
        folder = resolve_model(reference)
        key = (reference, folder.revision)
        return self.models.get_or_make(key, lambda: open_model(key, folder))

    def first_rows(self, model: CachedModel, layer: Layer, rows: int) -> torch.Tensor:
        """First rows of a layer's weight, (rows, in_) float32. The maximum number that a question
        may use is cached.
        """
        key = (*model.key, layer.name)
        rows_of_weight = self.first_rows_kept.get(key)
        if rows_of_weight is None or len(rows_of_weight) < rows:
            weight = model.weight(layer)
            max_rows = max(rows, LIVE_WEIGHTS // max(1, weight.shape[1]))
            rows_of_weight = weight[:max_rows].clone()
        return self.first_rows_kept.keep(key, rows_of_weight)[:rows].contiguous()

    def spectrum(self, model: CachedModel, layer: Layer, weight: torch.Tensor) -> pd.DataFrame:
        """SpectrumRow of a layer, which takes seconds to compute."""
        return self.spectra.get_or_make(
            (*model.key, layer.name), lambda: table(spectrum(layer.name, weight), SpectrumRow)
        )

    def by_examples(
        self,
        about: tuple[Any, ...],
        recipe: Recipe,
        compute: Callable[[list[Batch]], InputStats | GradientStats | None],
    ) -> Any:
        """Result of a computation on the first calibration examples."""
        calibration = live_calibration(recipe)

        def compute_and_store() -> Any:
            folder = resolve_model(recipe.model)
            batches = calibration_batches(calibration, recipe.task, folder)
            with explain_load_errors(folder, f"{folder} cannot process the calibration data"):
                return compute(batches)

        return self.statistics.get_or_make((*about, calibration, recipe.task), compute_and_store)

    def clear(self) -> None:
        for recent in vars(self).values():
            recent.values.clear()


def open_model(key: tuple[str, str], folder: ModelSource) -> CachedModel:
    """Open a model with the checks of a run, so that a page does not offer one that would fail:
    non-finite weights, a missing or invalid tokenizer.
    """
    check_finite(folder)
    if folder.kind != "image-classification":
        tokenizer_of(folder)
    start = time.perf_counter()
    model = load_model(folder, torch.device("cpu"), torch.float32)
    return CachedModel(key, folder, model, time.perf_counter() - start)


def live_calibration(recipe: Recipe) -> Calibration:
    """Calibration with at most as many examples as a live question uses."""
    calibration = recipe.calibration
    return calibration.model_copy(update={"samples": min(LIVE_SAMPLES, calibration.samples)})


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in an object's fields, lists and mappings."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(tensor_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(tensor_bytes, value))
    return tensor_bytes(vars(value)) if hasattr(value, "__dict__") else 0


CACHE = ModelCache()  # of this worker
