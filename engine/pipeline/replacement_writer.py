"""Writes a model that replaces another, block by block, and records how far each layer has moved
from its initial weights.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from engine.measurement.error import LayerComparison, layer_columns, unchanged_row
from engine.measurement.size import origin_of_replacement
from engine.models.layers import Layer, blocks_of
from engine.models.loaded_model import LoadedModel
from engine.models.packed_folder import PackedFolder
from engine.pipeline.pruned_writer import removed_row, update_config
from engine.results.schema.tables import NAN, LayerRow
from engine.step.replacement_model import ReplacementModel
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder
from engine.tensors.weights import DenseWeight


@dataclass(frozen=True)
class ReplacementWriter:
    """Writer of one replacement model to a folder. Layers have the names of those from which they
    started, if there are any.
    """

    context: RunContext
    original: LoadedModel
    replacement: ReplacementModel
    tables: TableBuilder

    def write(self, out: Path) -> PackedFolder:
        packed = PackedFolder(
            out, self.replacement.source, self.context.recipe.model_dump(mode="json")
        )
        layers = self.replacement.layers()
        for block in blocks_of(layers):
            packed.add({layer.name: self.record_layer(layer) for layer in block})
        packed.add({}, self.replacement.plain())
        packed.finish(origin_of_replacement(self.original, layers, self.replacement.source_layers))
        self.update_config(packed)
        self.add_notes(packed, layers)
        return packed

    def update_config(self, packed: PackedFolder) -> None:
        if self.replacement.config:
            (packed.folder / "config.json").write_text(
                json.dumps(self.replacement.config, indent=1)
            )
        update_config(packed, self.replacement.pruning_plan)

    def add_notes(self, packed: PackedFolder, layers: list[Layer]) -> None:
        sizes = {row.name: row.size_bytes for row in self.tables.layers}
        tied = (self.with_original_name(layer) for layer in layers if layer.tied_to)
        self.tables.layers.extend(
            unchanged_row(layer, sizes[self.original_name(layer.tied_to)]) for layer in tied
        )
        if self.replacement.source_layers:
            counterparts = {
                *self.replacement.source_layers.values(),
                *(self.original_name(layer.name) for layer in layers),
            }
            removed = (
                layer
                for layer in self.original.layers
                if layer.name not in counterparts and not layer.tied_to
            )
            self.tables.layers.extend(
                removed_row(layer, self.context.config.technique) for layer in removed
            )
        self.tables.ledger.extend(
            replace(row, layer=self.original_name(row.layer)) for row in packed.ledger_rows()
        )

    def original_name(self, name: str) -> str:
        return self.replacement.source_layers.get(name, name)

    def with_original_name(self, layer: Layer) -> Layer:
        return replace(layer, name=self.original_name(layer.name))

    def record_layer(self, layer: Layer) -> DenseWeight:
        stored = self.replacement.stored_weight(layer.name)
        before = next(
            (
                candidate
                for candidate in self.original.layers
                if candidate.name == self.replacement.source_layers.get(layer.name)
            ),
            None,
        )
        if before is not None and before.matrix_shape == stored.shape:
            self.record_change(self.with_original_name(layer), stored)
        else:
            self.tables.layers.append(self.new_row(layer, before, stored))
        return stored

    def record_change(self, layer: Layer, stored: DenseWeight) -> None:
        """Row of a layer that started from one of the same shape."""
        current = self.original.model.get_submodule(layer.name).stored
        comparison = LayerComparison(layer, current.to_dense().cpu(), stored.to_dense())
        self.tables.layers.append(comparison.row(stored, self.context.config.technique))
        self.tables.channels.append(comparison.channels())
        self.tables.histograms.extend(comparison.histogram())

    def new_row(self, layer: Layer, before: Layer | None, stored: DenseWeight) -> LayerRow:
        """Row of a layer without a counterpart."""
        shapes = {"original_shape": before.shape} if before is not None else {}
        note = (
            "of another shape than before"
            if before is not None
            else self.replacement.initial_weights_note
        )
        bits = stored.nbytes * 8 / (before or layer).parameters
        size = {
            "size_bytes": stored.nbytes,
            "bits_per_weight": bits,
            "relative_error": NAN,
            "sparsity": 0.0,
        }
        return LayerRow(
            **layer_columns(self.with_original_name(layer)),
            technique=self.context.config.technique,
            note=note,
            **size,
            **shapes,
        )
