"""Report on each layer of a step: its error, the table rows about it, and notes on layers that
did not change.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import nn

from engine.calibration import InputStats
from engine.calibration.activation_stats import has_observable_inputs
from engine.calibration.gradient_stats import GradientStats
from engine.config.technique import Technique
from engine.errors import PlainError
from engine.measurement.error import LayerComparison, level_rows, unchanged_row
from engine.models.layers import SKIP, Layer, included_embeddings
from engine.models.loaded_model import LoadedModel
from engine.pipeline.folded_scales import FoldedScales
from engine.recipe import Layers
from engine.step.table_builder import TableBuilder
from engine.techniques.implementations import diagnostics, why_unchanged
from engine.tensors.weights import DenseWeight, StoredWeight

MAX_SQUARABLE = 1e18  # a larger weight's square would overflow float32
ADVICE_UNCHANGED = (
    "Choose a stronger setting (fewer bits, a shorter format, more zeros) or another model."
)
NOT_SCALED = "no norm or layer before it can take a scale, so it was rounded without one"
UNSCALED = "without scales, since nothing before it can take them"
RESCALED = "it takes the scales of its inputs"
REWRITTEN = "it was changed together with other layers, which does not change the model's function"
NOT_OBSERVABLE = "its inputs cannot be observed (an embedding or grouped convolution)"
NOT_REACHED = "no calibration data reached it"
NO_GRADIENT = "the loss on the calibration data has no gradient for its weights"
EQUAL_WEIGHTS = "all its weights are equal"


@dataclass
class LayerReport:
    """Rows and notes on the layers of one step."""

    original: LoadedModel  # the model to compress
    reference: LoadedModel  # reference for errors: the same model, or the one before earlier steps
    settings: dict[str, Technique]
    choice: Layers  # layers that the recipe includes and skips
    samples: dict[str, torch.Tensor]  # samples of the original model's inputs, for output errors
    scales: FoldedScales = field(default_factory=FoldedScales)
    found: TableBuilder = field(default_factory=TableBuilder)  # rows of the current block
    notes: dict[str, str] = field(default_factory=dict)
    judged: int = 0  # number of compressed layers
    unchanged: dict[str, str] = field(default_factory=dict)  # unchanged layers, with the reason

    def keep(self, layer: Layer, current: StoredWeight, reason: str) -> None:
        """Record a layer that is stored unchanged."""
        self.found.layers.append(unchanged_row(layer, current.nbytes, reason))

    def judge(
        self,
        layer: Layer,
        current: StoredWeight,
        stored: StoredWeight,
        stats: InputStats | GradientStats | None,
    ) -> None:
        """Record a layer's error.

        Raises PlainError if it became NaN, or did not change although it should have.
        """
        before, inputs = current.to_dense(torch.float32), self.sample_for(layer)
        original = (
            self.reference.model.get_submodule(layer.name).stored.to_dense(torch.float32)
            if self.reference is not self.original
            else before
        )
        comparison = LayerComparison(
            layer, original, self.scales.without_scales(layer.name, stored.to_dense())
        )
        setting, constant = self.settings[layer.name], bool(before.min() == before.max())
        notes = [
            self.notes.get(layer.name, ""),
            narrow_rows_note(setting, layer),
            EQUAL_WEIGHTS if constant else "",
        ]
        notes += dict.fromkeys(stats.warnings if stats else ())
        converted = cast_dtypes(current, stored)
        if converted and torch.equal(comparison.compressed, before):
            notes.append(
                f"{converted[1]} holds every {converted[0]} weight of the file exactly: "
                "nothing is lost, only the bytes change"
            )
        if torch.equal(comparison.compressed, before) and not (
            constant or converted or setting.may_change_nothing
        ):
            self.unchanged[layer.name] = reason = why_unchanged(setting, layer, stored, before)
            if not reason:
                raise PlainError(unchanged_message(layer.name, setting))
            notes.append(reason)
        self.judged += 1
        received = (
            None
            if inputs is None
            else self.scales.layer_inputs(layer.name, stored, inputs.to(original.device))
        )
        row = comparison.row(
            stored, setting.technique, received, "; ".join(note for note in notes if note)
        )
        if not row.relative_error < float("inf"):
            raise PlainError(not_finite_message(row.name, original))
        self.found.layers.append(row)
        self.found.channels.append(comparison.channels())
        self.found.histograms.extend(comparison.histogram())
        self.found.levels.extend(
            () if self.scales.moves_scales(layer.name) else level_rows(row.name, stored)
        )
        self.found.add(diagnostics(setting, layer.name, original, stored, stats))
        if isinstance(stats, InputStats) and stats.missing < stats.count:
            self.found.inputs.append(self.input_rows(comparison, stats))

    def sample_for(self, layer: Layer) -> torch.Tensor | None:
        """Sample of a layer's inputs; for an embedding, of the output layer tied to it."""
        tied = [
            layer.name,
            *(other.name for other in self.original.tied_layers if other.tied_to == layer.name),
        ]
        return next((self.samples[name] for name in tied if name in self.samples), None)

    def refuse_unchanged(self) -> None:
        """Check that at least one compressed layer has changed.

        Raises PlainError otherwise.
        """
        if self.unchanged and len(self.unchanged) == self.judged:
            name, reason = next(iter(self.unchanged.items()))
            raise PlainError(f"No layer has changed: {name} {reason}. {ADVICE_UNCHANGED}")

    def notes_on_layers(self, rows: TableBuilder) -> list[str]:
        """Notes of a result on unchanged layers, and on included embeddings that were treated
        differently.
        """
        notes, by_name = [], {row.name: row for row in rows.layers}
        if self.unchanged:
            names = ", ".join(list(self.unchanged)[:3]) + (
                " and others" if len(self.unchanged) > 3 else ""
            )
            notes.append(
                f"{len(self.unchanged)} of {self.judged} layers needed no change: {names}."
            )
        for layer in included_embeddings(self.original.layers, self.choice):
            if not by_name[layer.name].technique:
                notes.append(
                    f"{layer.name} is included (layers.include) but was not changed: "
                    f"{by_name[layer.name].note}."
                )
            elif self.notes.get(layer.name) == NOT_SCALED:
                notes.append(
                    f"{layer.name} is included (layers.include) and was treated {UNSCALED}."
                )
        return notes

    def input_rows(self, comparison: LayerComparison, stats: InputStats) -> pd.DataFrame:
        """InputRow of every input channel of the original, as a frame. A convolution's channel
        covers its kernel.
        """
        scales = self.scales.inputs.get(comparison.layer.name, torch.ones_like(stats.abs_mean))
        mean, largest, scale = (
            column.view(-1, stats.area)
            for column in (stats.abs_mean * scales, stats.abs_max * scales, scales)
        )
        errors, total = (
            weight.square().sum(0).view(-1, stats.area).sum(1).sqrt()
            for weight in (comparison.weight_error, comparison.original)
        )
        errors = errors / total.clamp_min(1e-30)
        numbers = {
            "magnitude": mean.mean(1),
            "largest": largest.amax(1),
            "scale": scale[:, 0],
            "weight_error": errors,
        }
        columns = {name: values.double().cpu().numpy() for name, values in numbers.items()}
        return pd.DataFrame(
            {"layer": comparison.layer.name, "channel": np.arange(len(errors)), **columns}
        )


def cast_dtypes(current: StoredWeight, stored: StoredWeight) -> tuple[str, str] | None:
    """Original and new dtype of a dense weight that was only cast, possibly without loss."""
    if (
        not (isinstance(current, DenseWeight) and isinstance(stored, DenseWeight))
        or current.weight.dtype == stored.weight.dtype
    ):
        return None
    return tuple(str(module.weight.dtype).removeprefix("torch.") for module in (current, stored))


def not_finite_message(name: str, original: torch.Tensor) -> str:
    largest = original.abs().max().item()
    if largest < MAX_SQUARABLE:
        return f"{name} became NaN while it was compressed; please report this recipe."
    return (
        f"{name} holds a weight of {largest:.0e}, too large to compute with in float32; check "
        f"the model, or add the layer to {SKIP}."
    )


def unchanged_message(name: str, setting: Technique) -> str:
    return (
        f"{name} is unchanged, although {setting.title} should have changed it; please report this "
        f"recipe, or add the layer to {SKIP}."
    )


def why_not_seen(setting: Technique, module: nn.Module) -> str:
    if setting.needs == "gradients":
        return NO_GRADIENT
    return NOT_REACHED if has_observable_inputs(module) else NOT_OBSERVABLE


def narrow_rows_note(setting: Technique, layer: Layer) -> str:
    """Note for rows with fewer weights than a group."""
    in_ = layer.matrix_shape[1]
    return (
        (
            f"a row has {in_:,} weights, fewer than a group of {setting.group:,}: each row has "
            "one scale"
        )
        if in_ < setting.group
        else ""
    )
