"""Plan for removing whole structures of a model: the kept part of each tensor, and its new name."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from engine.models.layers import Layer, is_depthwise
from engine.models.loaded_model import LoadedModel
from engine.models.loading import ModelSource
from engine.results.schema.tables import StructureRow
from engine.step.layer_swap import LayerSwap
from engine.tensors.sliced import SlicedWeight
from engine.tensors.weights import DenseWeight, StoredWeight


def no_checkpoint_folder() -> None:
    """Return None: checkpoints are not kept."""


@dataclass(frozen=True)
class TechniqueInput:
    """The model that a technique receives, and the data it may use."""

    original: LoadedModel
    folder: ModelSource
    targets: frozenset[str]  # layers that may change
    layer_swap: LayerSwap | None = None  # None in a forecast, which has no data
    # returns the folder for checkpoints of a training, or None
    open_checkpoint_folder: Callable[[], Path | None] = no_checkpoint_folder


@dataclass(frozen=True)
class KeptIndices:
    """Kept indices of a tensor along its outputs and inputs, in order; None if all are kept."""

    rows: torch.Tensor | None = None  # (kept,) int64
    columns: torch.Tensor | None = None

    def select(self, matrix: torch.Tensor) -> torch.Tensor:
        """(out, in_) or (out,) -> the kept part"""
        rows = matrix if self.rows is None else matrix[self.rows]
        return rows if self.columns is None else rows[:, self.columns]

    def shape(self, out: int, in_: int) -> tuple[int, int]:
        return out if self.rows is None else len(self.rows), in_ if self.columns is None else len(
            self.columns
        )


@dataclass(frozen=True)
class PruningPlan:
    """All changes to a model; layers that are not named are unchanged."""

    # by layer, or by the norm whose tensors are all cut
    kept_indices: dict[str, KeptIndices] = field(default_factory=dict)
    removed_blocks: tuple[str, ...] = ()  # blocks
    new_block_names: dict[str, str] = field(default_factory=dict)  # block -> new name
    # other changed or new tensors outside of layers
    replaced_tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    # fields of config.json that change with the tensors
    config: dict[str, Any] = field(default_factory=dict)
    # fields that may change, if a model built with them has exactly these shapes
    uniform: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)  # by layer
    structures: tuple[StructureRow, ...] = ()
    # layer -> block of the structures that it belongs to
    block_of_layer: dict[str, str] = field(default_factory=dict)

    def removes(self, name: str) -> bool:
        return any(name.startswith(f"{block}.") for block in self.removed_blocks)

    def changes(self, layer: str) -> bool:
        return layer in self.kept_indices or self.removes(layer)

    def name(self, before: str) -> str:
        """Name of a layer, norm or tensor in the smaller model."""
        block = next(
            (block for block in self.new_block_names if before.startswith(f"{block}.")), None
        )
        return before if block is None else self.new_block_names[block] + before.removeprefix(block)

    def plain(self, before: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Norms and biases of the smaller model: a bias loses the same positions as its layer's
        outputs.
        """
        left = {name: value for name, value in before.items() if name not in self.replaced_tensors}
        parts = {
            name: self.part(name, value) for name, value in left.items()
        } | self.replaced_tensors
        return {self.name(name): value for name, value in parts.items() if not self.removes(name)}

    def part(self, name: str, value: torch.Tensor) -> torch.Tensor:
        kept = self.kept_indices.get(name.rpartition(".")[0])
        return KeptIndices(kept.rows).select(value) if kept and value.ndim else value

    def layers(self, before: list[Layer]) -> Iterator[tuple[Layer, Layer]]:
        """Kept layers, before and after."""
        for layer in before:
            if not self.removes(layer.name):
                shape = self.shape(layer)
                groups = shape[0] if is_depthwise(layer) else layer.groups
                yield layer, replace(layer, name=self.name(layer.name), shape=shape, groups=groups)

    def shape(self, layer: Layer) -> tuple[int, ...]:
        """Shape in the smaller model; a convolution's kernel keeps its height and width."""
        if layer.name not in self.kept_indices:
            return layer.shape
        out, in_ = self.kept_indices[layer.name].shape(*layer.matrix_shape)
        area = torch.Size(layer.shape[2:]).numel()
        return (out, in_ // area, *layer.shape[2:])

    def stored_weight(self, layer: Layer, current: StoredWeight) -> StoredWeight:
        """Weight of a layer in the smaller model. A changed one is dense, in its file's dtype."""
        if layer.name not in self.kept_indices:
            return current
        weight = (
            self.kept_indices[layer.name]
            .select(current.to_dense(original_dtype(layer, current)))
            .contiguous()
            .cpu()
        )
        return DenseWeight(tuple(weight.shape), weight)

    def planned_weight(self, layer: Layer, current: StoredWeight) -> StoredWeight:
        """Smaller stored weight without values."""
        if layer.name not in self.kept_indices:
            return current
        shape = self.kept_indices[layer.name].shape(*layer.matrix_shape)
        return DenseWeight(
            shape, torch.empty(shape, dtype=original_dtype(layer, current), device="meta")
        )

    def sliced_weight(self, layer: Layer, current: StoredWeight) -> SlicedWeight:
        """Kept part of a layer in its original position; empty for a layer in a removed block."""
        if self.removes(layer.name):
            return replace(
                self, removed_blocks=(), kept_indices={layer.name: KeptIndices(torch.arange(0))}
            ).sliced_weight(layer, current)
        kept, (out, in_) = self.kept_indices.get(layer.name, KeptIndices()), layer.matrix_shape
        rows, columns = (
            torch.arange(size) if indices is None else indices
            for indices, size in ((kept.rows, out), (kept.columns, in_))
        )
        weight = kept.select(current.to_dense(original_dtype(layer, current)))
        return SlicedWeight((out, in_), weight, rows, columns)


def original_dtype(layer: Layer, current: StoredWeight) -> torch.dtype:
    return current.weight.dtype if isinstance(current, DenseWeight) else getattr(torch, layer.dtype)
