"""Writes a model without its removed structures, block by block, and reports on each layer."""

import json
from dataclasses import dataclass, replace
from typing import Any

import torch

from engine.errors import PlainError
from engine.events import ProgressEvent
from engine.measurement.error import LayerComparison, histogram_rows, layer_columns, unchanged_row
from engine.measurement.size import origin_of_rebuilt, plain_bytes
from engine.models.layers import Layer, blocks_of, included_embeddings, layers_of, skip_reason
from engine.models.loaded_model import LoadedModel
from engine.models.loading import meta_model, resolve_model
from engine.models.packed_folder import PackedFolder, file_bytes
from engine.models.shapes import KEPT_HEADS
from engine.results.schema.tables import HistogramRow, LayerRow
from engine.step.pruning_plan import PruningPlan
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder
from engine.tensors.sliced import SlicedWeight
from engine.tensors.weights import StoredWeight

READ_IF_THERE = ("head_dim",)  # fields of config.json that some configurations do not declare
REMOVED, UNTOUCHED = "removed with its block", "no part of it is removed"
GROUPED_CONVOLUTION = "its channels are kept because they pass through a grouped convolution"


@dataclass(frozen=True)
class PrunedWriter:
    """Writer of one pruned model to a folder."""

    context: RunContext
    original: LoadedModel
    pruning_plan: PruningPlan
    samples: dict[str, torch.Tensor]  # samples of each layer's inputs, for output errors
    tables: TableBuilder

    @property
    def technique(self) -> str:
        return self.context.config.technique

    def write(self, packed: PackedFolder) -> None:
        for block in blocks_of(self.original.layers):
            if not self.pruning_plan.removes(block[0].name):
                packed.add(
                    {
                        self.pruning_plan.name(layer.name): self.record_layer(layer)
                        for layer in block
                    }
                )
            else:
                self.tables.layers.extend(removed_row(layer, self.technique) for layer in block)
        packed.add({}, self.pruning_plan.plain(self.original.plain))
        packed.finish(origin_of_rebuilt(self.original, self.pruning_plan))
        update_config(packed, self.pruning_plan)
        self.add_notes(packed)

    def add_notes(self, packed: PackedFolder) -> None:
        """Add notes after writing. Layers have their original names."""
        sizes = {row.name: row.size_bytes for row in self.tables.layers}
        self.tables.layers.extend(
            unchanged_row(layer, sizes[layer.tied_to])
            for layer in self.original.layers
            if layer.tied_to
        )
        before = {
            self.pruning_plan.name(layer.name): layer.name
            for layer in self.original.layers
            if not self.pruning_plan.removes(layer.name)
        }
        self.tables.ledger.extend(
            replace(row, layer=before.get(row.layer, row.layer)) for row in packed.ledger_rows()
        )
        self.tables.structures.extend(self.pruning_plan.structures)
        for layer in included_embeddings(self.original.layers, self.context.recipe.layers):
            if layer.name not in self.pruning_plan.kept_indices:
                reason = (
                    skip_reason(layer, self.original.tied_layers, self.context.recipe.layers)
                    or UNTOUCHED
                )
                self.context.notes.append(
                    f"{layer.name} is included (layers.include) but was not changed: {reason}."
                )

    def record_layer(self, layer: Layer) -> StoredWeight:
        """Return a layer as it will be stored, and record its error."""
        done, total = len(self.tables.layers), len(self.original.layers)
        self.context.progress(ProgressEvent("removing-structures", done, total))
        current = self.original.model.get_submodule(layer.name).stored
        if layer.name not in self.pruning_plan.kept_indices:
            reason = skip_reason(layer, self.original.tied_layers, self.context.recipe.layers) or (
                GROUPED_CONVOLUTION if layer.groups > 1 else ""
            )
            self.tables.layers.append(unchanged_row(layer, current.nbytes, reason))
            return current
        left, weight = (
            self.pruning_plan.sliced_weight(layer, current),
            current.to_dense(torch.float32),
        )
        comparison, inputs = (
            LayerComparison(layer, weight, left.to_dense()),
            self.samples.get(layer.name),
        )
        received = None if inputs is None else (inputs.to(weight.device).float(),) * 2
        self.tables.layers.append(
            changed_row(comparison, left, self.pruning_plan, self.technique, received)
        )
        self.tables.channels.append(comparison.channels())
        self.tables.histograms.extend(pruned_histogram_rows(comparison, left))
        return self.pruning_plan.stored_weight(layer, current)


def changed_row(
    comparison: LayerComparison,
    left: SlicedWeight,
    pruning_plan: PruningPlan,
    technique: str,
    inputs: tuple[Any, ...] | None = None,
) -> LayerRow:
    """Row of a layer with its new shape. Its relative error is the removed share of the weights'
    norm.
    """
    layer = comparison.layer
    if pruning_plan.removes(layer.name):
        return removed_row(layer, technique)
    row, count = (
        comparison.row(left, technique, inputs, pruning_plan.notes.get(layer.name, UNTOUCHED)),
        left.weight.numel(),
    )
    after = {
        "shape": pruning_plan.shape(layer),
        "original_shape": layer.shape,
        "parameters": count,
        "bits_per_weight": left.nbytes * 8 / layer.parameters,
    }
    return replace(row, **after, sparsity=0.0)


def removed_row(layer: Layer, technique: str) -> LayerRow:
    """Row of a layer that was removed completely."""
    after = {"shape": (0, *layer.shape[1:]), "original_shape": layer.shape, "parameters": 0}
    return LayerRow(
        **layer_columns(layer) | after,
        technique=technique,
        size_bytes=0,
        bits_per_weight=0.0,
        relative_error=1.0,
        sparsity=0.0,
        note=REMOVED,
    )


def pruned_histogram_rows(comparison: LayerComparison, left: SlicedWeight) -> list[HistogramRow]:
    """Histograms of all weights before, and of the remaining ones, with common bins."""
    low, high = comparison.original.min().item(), comparison.original.max().item()
    versions = {"original": comparison.original, "compressed": left.weight.float()}
    return [
        row
        for version, weight in versions.items()
        for row in histogram_rows(comparison.layer.name, version, weight, low, high)
    ]


def update_config(packed: PackedFolder, pruning_plan: PruningPlan) -> None:
    """Set the new shapes in config.json, if it can describe them; it cannot if layers differ."""
    path = packed.folder / "config.json"
    fields = json.loads(path.read_bytes())
    if pruning_plan.config:
        fields = updated_config_fields(fields, pruning_plan.config, packed)
        path.write_text(json.dumps(fields, indent=1))
    # number that must stay in config.json
    given_for_every_head = any(
        name.endswith(f".{KEPT_HEADS}") for name in pruning_plan.replaced_tensors
    )
    if (
        pruning_plan.uniform
        and not given_for_every_head
        and (wider := updated_config_fields(fields, pruning_plan.uniform, packed)) != fields
    ):
        path.write_text(json.dumps(wider, indent=1))
        if not config_fits(packed):
            path.write_text(json.dumps(fields, indent=1))


def updated_config_fields(
    fields: dict[str, Any], changes: dict[str, Any], packed: PackedFolder
) -> dict[str, Any]:
    """Configuration with some fields changed, each under the name that this architecture uses;
    unknown fields are left out.
    """
    model_config = meta_model(resolve_model(str(packed.folder))).config
    config = model_config.get_text_config()
    named = {
        name: value
        for name, value in changes.items()
        if hasattr(config, name) or name in READ_IF_THERE
    }
    # computed from others, such as Falcon's head_dim
    computed = {name for name in named if isinstance(getattr(type(config), name, None), property)}
    changed = {
        config.attribute_map.get(name, name): value
        for name, value in named.items()
        if name not in computed
    }
    return (
        fields | changed
        if config is model_config
        else fields | {"text_config": fields["text_config"] | changed}
    )


def config_fits(packed: PackedFolder) -> bool:
    """Return True if a model built from the configuration has the written shapes."""
    try:
        layers = layers_of(meta_model(resolve_model(str(packed.folder))))
    except PlainError:
        return False
    return all(
        layer.tied_to or packed.shapes.get(layer.name) == layer.matrix_shape for layer in layers
    )


def pruned_model_bytes(
    original: LoadedModel, pruning_plan: PruningPlan, plans: dict[str, StoredWeight]
) -> int:
    """Bytes of all files to be written; ``plans``: storage by later steps, by the new names of
    layers.
    """
    stored = {
        layer.name: original.model.get_submodule(layer.name).stored for layer in original.layers
    }
    blocks = [
        block for block in blocks_of(original.layers) if not pruning_plan.removes(block[0].name)
    ]
    files = (
        {
            pruning_plan.name(layer.name): pruning_plan.planned_weight(layer, stored[layer.name])
            for layer in block
        }
        for block in blocks
    )
    files = ({name: plans.get(name, stored) for name, stored in file.items()} for file in files)
    return sum(map(file_bytes, files)) + plain_bytes(pruning_plan.plain(original.plain))
