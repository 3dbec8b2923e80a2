"""A recipe with the model's properties that are known before a run."""

from dataclasses import dataclass, replace
from typing import Any

from engine.config.technique import Technique
from engine.evaluation.calibration_batches import ROWS
from engine.forecast.data_volume import DataVolume, data_volume, example_count
from engine.forecast.throughput import ForwardTiming, LayerTiming, forward_timing, layer_timing
from engine.models.layers import Layer
from engine.models.loaded_model import LoadedModel, device_and_dtype
from engine.models.loading import ModelSource
from engine.recipe import Recipe
from engine.recipe.tasks import LanguageModeling, tasks_by_split
from engine.runtime.threads import threads_to_train

GPU_PACE = 2e13  # products per second of a GPU, which the CPU probes cannot measure


@dataclass(frozen=True)
class Job:
    """One step of a recipe, with the steps before it."""

    recipe: Recipe
    folder: ModelSource
    key: tuple[Any, ...]
    loaded: LoadedModel
    settings: dict[str, Technique]  # settings of the layers to compress
    opening_seconds: float  # seconds for opening the model once, including library imports
    earlier: tuple["Job", ...] = ()  # earlier steps

    @property
    def config(self) -> Technique | None:
        return self.recipe.steps[-1] if self.recipe.steps else None

    @property
    def targets(self) -> list[Layer]:
        return [layer for layer in self.loaded.layers if layer.name in self.settings]

    @property
    def passes(self) -> ForwardTiming:
        measured = forward_timing(self.key, self.loaded, self.folder, self.evaluation.length)
        device, _ = device_and_dtype(self.recipe)
        return (
            measured
            if device.type == "cpu"
            else ForwardTiming(measured.per_pass, self.loaded.parameters / GPU_PACE)
        )

    @property
    def training_passes(self) -> ForwardTiming:
        """Timing of forward passes with as many threads as training uses."""
        with threads_to_train(self.loaded.parameters):
            return replace(self, key=(*self.key, "training")).passes

    def layer_timing(self, layer: Layer) -> LayerTiming:
        return layer_timing(self.settings[layer.name], layer.matrix_shape[1])

    @property
    def by_split(self) -> list["Job"]:
        """One job for each evaluated split."""
        return [
            replace(self, recipe=self.recipe.model_copy(update={"task": task}))
            for task in tasks_by_split(self.recipe.task).values()
        ]

    @property
    def evaluation(self) -> DataVolume:
        return data_volume(self.recipe.task, self.folder)

    @property
    def calibration(self) -> DataVolume:
        settings, task = self.recipe.calibration, self.recipe.task
        if settings is None:
            return DataVolume(0, 0, 1)
        length = (
            self.evaluation.length
            if isinstance(task, LanguageModeling)
            else self.evaluation.positions / max(1, example_count(task))
        )
        length = settings.context if isinstance(task, LanguageModeling) else length
        return DataVolume(settings.samples * length, settings.samples / ROWS, max(1, int(length)))
