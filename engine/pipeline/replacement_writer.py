"""Writes a model that takes the place of another, block by block, and notes how far each layer has
moved from where it began.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from engine.measurement.error import Judged, described, kept_row
from engine.measurement.size import origin_of_replacement
from engine.models.layers import Layer, blocks_of
from engine.models.loaded_model import Opened
from engine.models.packed_folder import PackedFolder
from engine.pipeline.pruned_writer import configure, gone_row
from engine.results.schema.tables import NAN, LayerRow
from engine.step.replacement_model import Successor
from engine.step.run_context import Bench
from engine.step.table_builder import TableBuilder
from engine.tensors.weights import Dense


@dataclass(frozen=True)
class Succession:
    """One successor on its way into a folder. Layers go by the names they had in the model before,
    where they began there.
    """

    bench: Bench
    original: Opened
    heir: Successor
    rows: TableBuilder

    def write(self, out: Path) -> PackedFolder:
        packed = PackedFolder(out, self.heir.source, self.bench.recipe.model_dump(mode="json"))
        layers = self.heir.layers()
        for block in blocks_of(layers):
            packed.add({layer.name: self.done(layer) for layer in block})
        packed.add({}, self.heir.plain())
        packed.finish(origin_of_replacement(self.original, layers, self.heir.homes))
        self.configure(packed)
        self.note(packed, layers)
        return packed

    def configure(self, packed: PackedFolder) -> None:
        if self.heir.config:
            (packed.folder / "config.json").write_text(json.dumps(self.heir.config, indent=1))
        configure(packed, self.heir.small)

    def note(self, packed: PackedFolder, layers: list[Layer]) -> None:
        sizes = {row.name: row.size_bytes for row in self.rows.layers}
        tied = (self.named(layer) for layer in layers if layer.tied_to)
        self.rows.layers.extend(kept_row(layer, sizes[self.home(layer.tied_to)]) for layer in tied)
        if self.heir.homes:
            begun = {*self.heir.homes.values(), *(self.home(layer.name) for layer in layers)}
            gone = (
                layer
                for layer in self.original.layers
                if layer.name not in begun and not layer.tied_to
            )
            self.rows.layers.extend(gone_row(layer, self.bench.how.technique) for layer in gone)
        self.rows.ledger.extend(
            replace(row, layer=self.home(row.layer)) for row in packed.ledger_rows()
        )

    def home(self, name: str) -> str:
        return self.heir.homes.get(name, name)

    def named(self, layer: Layer) -> Layer:
        return replace(layer, name=self.home(layer.name))

    def done(self, layer: Layer) -> Dense:
        stored = self.heir.stored(layer.name)
        before = next(
            (each for each in self.original.layers if each.name == self.heir.homes.get(layer.name)),
            None,
        )
        if before is not None and before.matrix_shape == stored.shape:
            self.moved(self.named(layer), stored)
        else:
            self.rows.layers.append(self.new_row(layer, before, stored))
        return stored

    def moved(self, layer: Layer, stored: Dense) -> None:
        """A layer of the shape it began with."""
        held = self.original.model.get_submodule(layer.name).stored
        judged = Judged(layer, held.dense().cpu(), stored.dense())
        self.rows.layers.append(judged.row(stored, self.bench.how.technique))
        self.rows.channels.append(judged.channels())
        self.rows.histograms.extend(judged.histogram())

    def new_row(self, layer: Layer, before: Layer | None, stored: Dense) -> LayerRow:
        """A layer that has no weight to be held against."""
        shapes = {"original_shape": before.shape} if before is not None else {}
        note = "of another shape than before" if before is not None else self.heir.begins
        bits = stored.nbytes * 8 / (before or layer).parameters
        size = {
            "size_bytes": stored.nbytes,
            "bits_per_weight": bits,
            "relative_error": NAN,
            "sparsity": 0.0,
        }
        return LayerRow(
            **described(self.named(layer)),
            technique=self.bench.how.technique,
            note=note,
            **size,
            **shapes,
        )
