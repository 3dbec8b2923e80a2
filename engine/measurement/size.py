"""Bytes of a model's files before they are written, and bits relative to the original model's
parameters.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace

import torch

from engine.models.layers import Layer, blocks_of
from engine.models.loaded_model import LoadedModel
from engine.models.origin import Origin
from engine.models.packed_folder import file_bytes
from engine.results.schema.tables import LayerRow
from engine.step.pruning_plan import PruningPlan
from engine.tensors.weights import StoredWeight


def written_bytes(loaded: LoadedModel, plans: dict[str, StoredWeight]) -> int:
    """Bytes of all files of a run that stores some layers as planned and keeps the others."""
    stored = {
        layer.name: loaded.model.get_submodule(layer.name).stored for layer in loaded.layers
    } | plans
    return sum(
        file_bytes({layer.name: stored[layer.name] for layer in block})
        for block in blocks_of(loaded.layers)
    ) + plain_bytes(loaded.plain)


def plain_bytes(plain: dict[str, torch.Tensor]) -> int:
    """Bytes of the file with tensors outside layers' weights; 0 if there are none, as in OLMo."""
    return file_bytes({}, plain) if plain else 0


# --- bits, relative to original parameters ------------------------------------------------------


def bits_per_weight(loaded: LoadedModel, layers: Collection[Layer] = ()) -> float:
    """Bits per compressed weight: 8 x bytes of the compressed layers / their parameters in the
    original model.

    For an uncompressed model: those of ``layers``, or of all layers.
    """
    origin, untied = loaded.origin, [layer for layer in loaded.layers if not layer.tied_to]
    if origin.compressed_parameters:
        return (
            sum(loaded.stored_bytes(layer) for layer in untied if layer.name in origin.compressed)
            * 8
            / origin.compressed_parameters
        )
    layers = layers or untied
    return (
        sum(loaded.stored_bytes(layer) for layer in layers)
        * 8
        / sum(layer.parameters for layer in layers)
    )


def bits_per_parameter(size_bytes: int, origin: Origin) -> float:
    """8 x bytes of the whole file / parameters of the original model."""
    return size_bytes * 8 / origin.parameters


def by_original_parameters(rows: Iterable[LayerRow], loaded: LoadedModel) -> list[LayerRow]:
    """Rows of the layers of ``loaded``, with bits relative to each layer's parameters in the
    original model.
    """
    counts = {
        layer.name: (layer.parameters, loaded.original_parameters(layer)) for layer in loaded.layers
    }
    # a student's new layer uses its own count
    shares = {name: now / (before or now) for name, (now, before) in counts.items()}
    return [
        replace(row, bits_per_weight=row.bits_per_weight * shares.get(row.name, 1.0))
        for row in rows
    ]


# --- origins of written models -----------------------------------------------------------------


def origin_of_compressed(loaded: LoadedModel, compressed: Collection[str]) -> Origin:
    """Origin of a model in which these layers are compressed in their shapes."""
    counts = {
        layer.name: loaded.original_parameters(layer)
        for layer in loaded.layers
        if layer.name in compressed and not layer.tied_to
    }
    return replace(loaded.origin, compressed=loaded.origin.compressed | counts)


def origin_of_rebuilt(loaded: LoadedModel, small: PruningPlan) -> Origin:
    """Origin of a model without the removed structures, by the layers' new names."""
    compressed = [
        layer
        for layer in loaded.layers
        if not layer.tied_to
        and (small.changes(layer.name) or layer.name in loaded.origin.compressed)
    ]
    left = {
        small.name(layer.name): loaded.original_parameters(layer)
        for layer in compressed
        if not small.removes(layer.name)
    }
    removed = sum(
        loaded.original_parameters(layer) for layer in compressed if small.removes(layer.name)
    )
    return Origin(loaded.origin.parameters, left, loaded.origin.removed + removed)


def origin_of_replacement(
    loaded: LoadedModel, layers: Iterable[Layer], source_layers: dict[str, str]
) -> Origin:
    """Origin of a dense model that replaces ``loaded``. Layers with unchanged shape and number
    format are not compressed.

    ``source_layers``: layer -> the layer of ``loaded`` from which it started
    """
    left = {layer.name: layer for layer in loaded.layers if not layer.tied_to}
    counts: dict[str, int] = {}
    for layer in (layer for layer in layers if not layer.tied_to):
        before = left.pop(source_layers.get(layer.name, ""), None)
        same = (
            before
            and before.shape == layer.shape
            and loaded.stored_bytes(before) == layer.original_bytes
        )
        if not same or before.name in loaded.origin.compressed:
            counts[layer.name] = loaded.original_parameters(before) if before else 0
    removed = sum(loaded.original_parameters(layer) for layer in left.values())
    return Origin(loaded.origin.parameters, counts, loaded.origin.removed + removed)
