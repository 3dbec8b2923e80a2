"""A model with whole structures taken out: what stays of each of its tensors, and where it will
stand.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from engine.models.layers import Layer, depthwise
from engine.models.loaded_model import Opened
from engine.models.loading import Folder
from engine.results.schema.tables import StructureRow
from engine.step.layer_swap import Trial
from engine.tensors.sliced import Narrowed
from engine.tensors.weights import Dense, Stored


def nowhere() -> None:
    """Return None: no folder, so nothing is kept."""


@dataclass(frozen=True)
class Subject:
    """A model that is to be rebuilt, and what may be looked at for it."""

    original: Opened
    folder: Folder
    targets: frozenset[str]  # layers that may change
    trial: Trial | None = None  # None in a forecast, which goes without data
    # asked for the folder in which trainings are kept meanwhile
    keeps: Callable[[], Path | None] = nowhere


@dataclass(frozen=True)
class Cut:
    """Kept indices of a tensor along its outputs and inputs, in order; None if all are kept."""

    rows: torch.Tensor | None = None  # (kept,) int64
    columns: torch.Tensor | None = None

    def of(self, matrix: torch.Tensor) -> torch.Tensor:
        """(out, in_) or (out,) -> what stays of it"""
        rows = matrix if self.rows is None else matrix[self.rows]
        return rows if self.columns is None else rows[:, self.columns]

    def shape(self, out: int, in_: int) -> tuple[int, int]:
        return out if self.rows is None else len(self.rows), in_ if self.columns is None else len(
            self.columns
        )


@dataclass(frozen=True)
class Rebuilt:
    """All changes to a model; layers that are not named are unchanged."""

    # by layer, or by the norm whose every tensor is cut
    cuts: dict[str, Cut] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()  # blocks
    moved: dict[str, str] = field(default_factory=dict)  # block -> its name afterwards
    # other changed or new tensors outside layers
    set_tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    # fields of config.json that must change with it
    config: dict[str, Any] = field(default_factory=dict)
    # that may, where a model made by them has exactly these shapes
    uniform: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)  # by layer
    structures: tuple[StructureRow, ...] = ()
    # layer -> where the structures that run through it stand
    homes: dict[str, str] = field(default_factory=dict)

    def drops(self, name: str) -> bool:
        return any(name.startswith(f"{block}.") for block in self.dropped)

    def changes(self, layer: str) -> bool:
        return layer in self.cuts or self.drops(layer)

    def name(self, before: str) -> str:
        """Name of a layer, norm or tensor in the smaller model."""
        block = next((block for block in self.moved if before.startswith(f"{block}.")), None)
        return before if block is None else self.moved[block] + before.removeprefix(block)

    def plain(self, before: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Norms and biases afterwards: a bias loses what its layer's outputs do."""
        left = {name: value for name, value in before.items() if name not in self.set_tensors}
        parts = {name: self.part(name, value) for name, value in left.items()} | self.set_tensors
        return {self.name(name): value for name, value in parts.items() if not self.drops(name)}

    def part(self, name: str, value: torch.Tensor) -> torch.Tensor:
        cut = self.cuts.get(name.rpartition(".")[0])
        return Cut(cut.rows).of(value) if cut and value.ndim else value

    def layers(self, before: list[Layer]) -> Iterator[tuple[Layer, Layer]]:
        """Kept layers, before and after."""
        for layer in before:
            if not self.drops(layer.name):
                shape = self.shape(layer)
                groups = shape[0] if depthwise(layer) else layer.groups
                yield layer, replace(layer, name=self.name(layer.name), shape=shape, groups=groups)

    def shape(self, layer: Layer) -> tuple[int, ...]:
        """Afterwards; a convolution's kernel keeps its height and width."""
        if layer.name not in self.cuts:
            return layer.shape
        out, in_ = self.cuts[layer.name].shape(*layer.matrix_shape)
        area = torch.Size(layer.shape[2:]).numel()
        return (out, in_ // area, *layer.shape[2:])

    def stored(self, layer: Layer, held: Stored) -> Stored:
        """A layer's weight afterwards; one that changes becomes dense, in the number format it has
        in the file.
        """
        if layer.name not in self.cuts:
            return held
        weight = self.cuts[layer.name].of(held.dense(dtype_of(layer, held))).contiguous().cpu()
        return Dense(tuple(weight.shape), weight)

    def sketch(self, layer: Layer, held: Stored) -> Stored:
        """Smaller stored weight without values."""
        if layer.name not in self.cuts:
            return held
        shape = self.cuts[layer.name].shape(*layer.matrix_shape)
        return Dense(shape, torch.empty(shape, dtype=dtype_of(layer, held), device="meta"))

    def narrowed(self, layer: Layer, held: Stored) -> Narrowed:
        """Kept part of a layer in its original position; empty for a layer in a removed block."""
        if self.drops(layer.name):
            return replace(self, dropped=(), cuts={layer.name: Cut(torch.arange(0))}).narrowed(
                layer, held
            )
        cut, (out, in_) = self.cuts.get(layer.name, Cut()), layer.matrix_shape
        rows, columns = (
            torch.arange(size) if kept is None else kept
            for kept, size in ((cut.rows, out), (cut.columns, in_))
        )
        weight = cut.of(held.dense(dtype_of(layer, held)))
        return Narrowed((out, in_), weight, rows, columns)


def dtype_of(layer: Layer, held: Stored) -> torch.dtype:
    return held.weight.dtype if isinstance(held, Dense) else getattr(torch, layer.dtype)
