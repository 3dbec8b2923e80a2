"""Calibration data passed through the model block by block: statistics of each layer's inputs, and
the scales that are folded because of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch

from engine.calibration import CalibrationStream, Fold, InputStats, scale_folds
from engine.calibration.activation_stats import merged_stats
from engine.calibration.gradient_stats import GradientStats
from engine.config.technique import Technique
from engine.evaluation import calibration_data
from engine.evaluation.calibration_batches import Batch
from engine.events import ProgressEvent
from engine.measurement.inputs import evenly_spaced_examples, sampled_inputs
from engine.measurement.surface import surface
from engine.models.layers import Layer
from engine.models.loaded_model import LoadedModel, calibration_dtype, device_and_dtype, shared_copy
from engine.models.packed_modules import Unpacking
from engine.pipeline.folded_scales import FoldedScales
from engine.pipeline.layer_report import NOT_SCALED, LayerReport
from engine.pipeline.preflight import check_calibration_size
from engine.pipeline.resume import FinishedBlock
from engine.results.schema.tables import SearchRow
from engine.step.layer_swap import LayerSwap
from engine.step.run_context import RunContext
from engine.techniques.implementations import input_scales
from engine.tensors.weights import DenseWeight


def gradient_stats_for(
    config: Technique, layer_swap: LayerSwap, settings: dict[str, Technique]
) -> dict[str, GradientStats]:
    return layer_swap.gradient_stats(tuple(settings)) if config.needs == "gradients" else {}


def load_calibration_batches(context: RunContext, targets: Sequence[Layer] = ()) -> list[Batch]:
    """Calibration batches of the recipe; shortfalls are noted once for all steps.

    Raises PlainError for too little data.
    """
    if not context.recipe.calibration:
        return []
    data = calibration_data(context.recipe.calibration, context.recipe.task, context.folder)
    context.notes.extend(note for note in data.notes if note not in context.notes)
    check_calibration_size(context.config, targets, data.tokens)
    return data.batches


def input_samples(
    context: RunContext, original: LoadedModel, batches: list[Batch]
) -> dict[str, torch.Tensor]:
    """A sample of each layer's inputs on calibration data, empty where the recipe has none."""
    if not batches:
        return {}
    device, _ = device_and_dtype(context.recipe)
    selected = evenly_spaced_examples(batches)
    done = iter(range(1, len(selected) + 1))
    return sampled_inputs(
        original.model,
        selected,
        device,
        lambda: context.progress(ProgressEvent("reading-calibration", next(done), len(selected))),
    )


def stream_of(
    context: RunContext, original: LoadedModel, batches: list[Batch], progress: Callable[[], None]
) -> CalibrationStream:
    """Calibration stream at the first block, in bfloat16 if that is fast and possible."""
    device, compute = device_and_dtype(context.recipe)

    def stream_in(dtype: torch.dtype) -> CalibrationStream:
        return CalibrationStream(
            shared_copy(context.folder, original, dtype), batches, device, progress
        )

    try:
        return stream_in(pass_dtype := calibration_dtype(context.recipe))
    except RuntimeError:  # an operation without bfloat16, such as FNet's Fourier transform
        if pass_dtype == compute:
            raise
        return stream_in(compute)


@dataclass
class StatisticsPass:
    """Calibration pass through a model whose blocks are replaced one after another by compressed
    ones.
    """

    config: Technique
    original: LoadedModel  # the model to compress
    stream: CalibrationStream
    report: LayerReport
    plain: dict[str, torch.Tensor]  # norms and biases in their final state
    progress: Callable[[], None]
    # those that changed in the current block
    changed: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def scales(self) -> FoldedScales:
        return self.report.scales

    def module(self, name: str) -> Unpacking:
        return self.stream.model.get_submodule(name)

    def begin_block(self) -> dict[str, torch.Tensor]:
        """Start a block, and return the dictionary of norms and biases that change with it."""
        self.changed = {}
        return self.changed

    def input_stats(self, block: str, names: list[str]) -> dict[str, InputStats]:
        """Input statistics of the layers on the calibration data, after scales are folded."""
        stats = self.stream.collect_stats(block, names, self.config.needs == "gram")
        if self.config.rescales_inputs and block in self.stream.chain:
            folds = scale_folds(self.stream, block, stats, names)
            chosen = [
                (fold, self.scales_of(fold, merged_stats(stats[name] for name in fold.sinks)))
                for fold in folds
            ]
            applied = [(fold, scales) for fold, scales in chosen if scales is not None]
            for fold, scales in applied:
                self.fold(fold, scales)
            self.report.notes |= {
                name: NOT_SCALED
                for name in names
                if not any(name in fold.sinks for fold, _ in applied)
            }
            for fold, scales in applied:
                after = {id(stats[name]): stats[name].divided_by(scales) for name in fold.sinks}
                stats |= {name: after[id(stats[name])] for name in fold.sinks}
        elif self.config.rescales_inputs:
            self.report.notes |= dict.fromkeys(names, NOT_SCALED)
        return stats

    def surfaces(self, stats_by_layer: dict[str, InputStats]) -> list[pd.DataFrame]:
        """Activation surfaces of every input, under the name of its first layer."""
        firsts = {
            id(stats): name
            for name, stats in reversed(stats_by_layer.items())
            if stats.missing < stats.count
        }.values()
        return [
            surface(name, stats_by_layer[name], self.scales.inputs.get(name))
            for name in stats_by_layer
            if name in firsts
        ]

    def scales_of(self, fold: Fold, stats: InputStats) -> torch.Tensor | None:
        """Scales by the technique for a fold; tried values are recorded."""
        self.progress()
        answer = input_scales(
            self.config, fold, [self.weight_of(name) for name in fold.sinks], stats
        )
        if answer is None:
            return None
        scales, searched = answer
        base, best = max(searched[0][1], 1e-30), min(error for _, error in searched)
        self.report.found.searches.extend(
            SearchRow(fold.sinks[0], fold.source, alpha, error / base, error == best)
            for alpha, error in searched
        )
        return scales

    def fold(self, fold: Fold, scales: torch.Tensor) -> None:
        """Fold scales in the calibrated model, and in the norms and biases to be written."""
        fold.apply(self.stream.model, scales)
        outputs = fold.source_scales(scales).cpu()
        self.scales.inputs |= dict.fromkeys(fold.sinks, scales)
        if not fold.from_norm:
            self.scales.outputs[fold.source] = fold.source_scales(scales)
        for name in (f"{fold.source}.weight", f"{fold.source}.bias"):
            if name in self.plain:
                self.settle(name, (self.plain[name].float() / outputs).to(self.plain[name].dtype))
        for name in fold.companions:
            self.rescale(name, scales)

    def rescale(self, name: str, scales: torch.Tensor) -> None:
        """Multiply the columns of an uncompressed router, in the dtype of the file."""
        if (tensor := f"{name}.weight") in self.plain:
            self.settle(
                tensor, (self.plain[tensor].float() * scales.cpu()).to(self.plain[tensor].dtype)
            )
        else:
            current = self.original.model.get_submodule(name).stored
            weight = (current.to_dense(torch.float32) * scales).to(
                current.weight.dtype if isinstance(current, DenseWeight) else torch.float32
            )
            self.scales.routers[name] = self.module(name).stored = DenseWeight(
                tuple(weight.shape), weight
            )

    def install(self, done: FinishedBlock) -> None:
        """Set the calibrated model to its state after a stored block."""
        routers = {layer.name for layer in self.original.layers if layer.routes}
        for name in done.layers.keys() & (self.report.settings.keys() | routers):
            module = self.stream.model.get_submodule(name)
            module.stored = done.layers[name].to(self.stream.device)
        for name, value in done.plain.items():
            self.settle(name, value)

    def weight_of(self, name: str) -> torch.Tensor:
        """(out, in_) float32"""
        return self.stream.model.get_submodule(name).stored.to_dense(torch.float32)

    def settle(self, name: str, value: torch.Tensor) -> None:
        """Set a norm's or bias's final values, also in the calibrated model."""
        self.plain[name] = self.changed[name] = value
        module, _, part = name.rpartition(".")
        parameter = getattr(self.stream.model.get_submodule(module), part)
        parameter.data = value.to(parameter.device, parameter.dtype)
