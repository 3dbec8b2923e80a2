"""Writes a model with whole structures taken out, block by block, and notes what became of each
layer.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

import torch

from engine.errors import PlainError
from engine.events import ProgressEvent
from engine.measurement.error import Judged, described, histogram_rows, kept_row
from engine.measurement.size import origin_of_rebuilt, plain_bytes
from engine.models.layers import Layer, blocks_of, included_embeddings, layers_of, why_kept
from engine.models.loaded_model import Opened
from engine.models.loading import resolve, skeleton
from engine.models.packed_folder import PackedFolder, file_bytes
from engine.models.shapes import KEPT_HEADS
from engine.results.schema.tables import HistogramRow, LayerRow
from engine.step.pruning_plan import Rebuilt
from engine.step.run_context import Bench
from engine.step.table_builder import TableBuilder
from engine.tensors.sliced import Narrowed
from engine.tensors.weights import Stored

READ_IF_THERE = ("head_dim",)  # in config.json, though some configurations do not declare it
GONE, UNTOUCHED = "taken out with its block", "nothing of it is taken out"
IN_GROUPS = "its channels are kept because they pass through a grouped convolution"


@dataclass(frozen=True)
class Rewriting:
    """One model on its way into a folder."""

    bench: Bench
    original: Opened
    small: Rebuilt
    samples: dict[str, torch.Tensor]  # of each layer's inputs, to judge by
    rows: TableBuilder

    @property
    def technique(self) -> str:
        return self.bench.how.technique

    def write(self, packed: PackedFolder) -> None:
        for block in blocks_of(self.original.layers):
            if not self.small.drops(block[0].name):
                packed.add({self.small.name(layer.name): self.done(layer) for layer in block})
            else:
                self.rows.layers.extend(gone_row(layer, self.technique) for layer in block)
        packed.add({}, self.small.plain(self.original.plain))
        packed.finish(origin_of_rebuilt(self.original, self.small))
        configure(packed, self.small)
        self.note(packed)

    def note(self, packed: PackedFolder) -> None:
        """Add notes after writing. Layers have their original names."""
        sizes = {row.name: row.size_bytes for row in self.rows.layers}
        self.rows.layers.extend(
            kept_row(layer, sizes[layer.tied_to]) for layer in self.original.layers if layer.tied_to
        )
        before = {
            self.small.name(layer.name): layer.name
            for layer in self.original.layers
            if not self.small.drops(layer.name)
        }
        self.rows.ledger.extend(
            replace(row, layer=before.get(row.layer, row.layer)) for row in packed.ledger_rows()
        )
        self.rows.structures.extend(self.small.structures)
        for layer in included_embeddings(self.original.layers, self.bench.recipe.layers):
            if layer.name not in self.small.cuts:
                reason = why_kept(layer, self.original.tied, self.bench.recipe.layers) or UNTOUCHED
                self.bench.notes.append(
                    f"{layer.name} is included (layers.include) but was not changed: {reason}."
                )

    def done(self, layer: Layer) -> Stored:
        """Return a layer as it will be stored, and record its error."""
        done, total = len(self.rows.layers), len(self.original.layers)
        self.bench.progress(ProgressEvent("removing-structures", done, total))
        held = self.original.model.get_submodule(layer.name).stored
        if layer.name not in self.small.cuts:
            why = why_kept(layer, self.original.tied, self.bench.recipe.layers) or (
                IN_GROUPS if layer.groups > 1 else ""
            )
            self.rows.layers.append(kept_row(layer, held.nbytes, why))
            return held
        left, weight = self.small.narrowed(layer, held), held.dense(torch.float32)
        judged, inputs = Judged(layer, weight, left.dense()), self.samples.get(layer.name)
        received = None if inputs is None else (inputs.to(weight.device).float(),) * 2
        self.rows.layers.append(changed_row(judged, left, self.small, self.technique, received))
        self.rows.channels.append(judged.channels())
        self.rows.histograms.extend(histogram(judged, left))
        return self.small.stored(layer, held)


def changed_row(
    judged: Judged,
    left: Narrowed,
    small: Rebuilt,
    technique: str,
    inputs: tuple[Any, ...] | None = None,
) -> LayerRow:
    """Row of a layer with its new shape. Its relative error is the removed share of the weights'
    norm.
    """
    layer = judged.layer
    if small.drops(layer.name):
        return gone_row(layer, technique)
    row, count = (
        judged.row(left, technique, inputs, small.notes.get(layer.name, UNTOUCHED)),
        left.weight.numel(),
    )
    after = {
        "shape": small.shape(layer),
        "original_shape": layer.shape,
        "parameters": count,
        "bits_per_weight": left.nbytes * 8 / layer.parameters,
    }
    return replace(row, **after, sparsity=0.0)


def gone_row(layer: Layer, technique: str) -> LayerRow:
    """A layer of which nothing is left."""
    after = {"shape": (0, *layer.shape[1:]), "original_shape": layer.shape, "parameters": 0}
    return LayerRow(
        **described(layer) | after,
        technique=technique,
        size_bytes=0,
        bits_per_weight=0.0,
        relative_error=1.0,
        sparsity=0.0,
        note=GONE,
    )


def histogram(judged: Judged, left: Narrowed) -> list[HistogramRow]:
    """All weights before, and those that are left, in the same bins."""
    low, high = judged.original.min().item(), judged.original.max().item()
    versions = {"original": judged.original, "compressed": left.weight.float()}
    return [
        row
        for version, weight in versions.items()
        for row in histogram_rows(judged.layer.name, version, weight, low, high)
    ]


def configure(packed: PackedFolder, small: Rebuilt) -> None:
    """Say the new shapes in config.json where it has words for them; where layers differ from one
    another it has not.
    """
    path = packed.folder / "config.json"
    fields = json.loads(path.read_bytes())
    if small.config:
        fields = said(fields, small.config, packed)
        path.write_text(json.dumps(fields, indent=1))
    # so many must stay in config.json
    given_for_every_head = any(name.endswith(f".{KEPT_HEADS}") for name in small.set_tensors)
    if (
        small.uniform
        and not given_for_every_head
        and (wider := said(fields, small.uniform, packed)) != fields
    ):
        path.write_text(json.dumps(wider, indent=1))
        if not fits(packed):
            path.write_text(json.dumps(fields, indent=1))


def said(fields: dict[str, Any], changes: dict[str, Any], packed: PackedFolder) -> dict[str, Any]:
    """A configuration with some fields changed, each under the name that this architecture has for
    it; those unknown to it are left out.
    """
    whole = skeleton(resolve(str(packed.folder))).config
    config = whole.get_text_config()
    named = {
        name: value
        for name, value in changes.items()
        if hasattr(config, name) or name in READ_IF_THERE
    }
    # from others, as Falcon's head_dim
    computed = {name for name in named if isinstance(getattr(type(config), name, None), property)}
    known = {
        config.attribute_map.get(name, name): value
        for name, value in named.items()
        if name not in computed
    }
    return (
        fields | known
        if config is whole
        else fields | {"text_config": fields["text_config"] | known}
    )


def fits(packed: PackedFolder) -> bool:
    """Return True if a model built from the configuration has the written shapes."""
    try:
        layers = layers_of(skeleton(resolve(str(packed.folder))))
    except PlainError:
        return False
    return all(
        layer.tied_to or packed.shapes.get(layer.name) == layer.matrix_shape for layer in layers
    )


def rebuilt_bytes(original: Opened, small: Rebuilt, plans: dict[str, Stored]) -> int:
    """Bytes of all files to be written; ``plans``: storage by later steps, by the new names of
    layers.
    """
    held = {
        layer.name: original.model.get_submodule(layer.name).stored for layer in original.layers
    }
    blocks = [block for block in blocks_of(original.layers) if not small.drops(block[0].name)]
    files = (
        {small.name(layer.name): small.sketch(layer, held[layer.name]) for layer in block}
        for block in blocks
    )
    files = ({name: plans.get(name, stored) for name, stored in file.items()} for file in files)
    return sum(map(file_bytes, files)) + plain_bytes(small.plain(original.plain))
