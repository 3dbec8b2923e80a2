"""Views of a model and of a layer as they are, and of the worker itself."""

import os

import torch

from engine.interactive.model_cache import CACHE
from engine.interactive.registry import answer
from engine.measurement.error import LayerComparison, histogram_rows, unchanged_row
from engine.measurement.size import bits_per_parameter, bits_per_weight, by_original_parameters
from engine.models.loaded_model import other_parts_notes
from engine.models.positions import usable_length
from engine.queries import LayerQuery, ModelQuery, WorkerQuery
from engine.results.schema.query_results import LayerView, ModelView, WorkerFacts
from engine.results.schema.tables import HistogramRow, LayerRow, table


@answer.register
def answer_model(query: ModelQuery) -> ModelView:
    cached = CACHE.model(query.model)
    folder, loaded = cached.folder, cached.opened
    layers = by_original_parameters(
        (unchanged_row(layer, loaded.stored_bytes(layer)) for layer in loaded.layers), loaded
    )
    return ModelView(
        reference=query.model,
        revision=folder.revision,
        architecture=folder.architecture,
        kind=folder.kind,
        parameters=loaded.parameters,
        size_bytes=loaded.size_bytes,
        bits_per_weight=bits_per_weight(loaded),
        bits_per_parameter=bits_per_parameter(loaded.size_bytes, loaded.origin),
        layers=table(layers, LayerRow),
        notes=(*folder.notes, *loaded.notes, *other_parts_notes(loaded)),
        compressed=folder.packed,
        longest=usable_length(loaded.model.config)
        if folder.kind != "image-classification"
        else None,
    )


@answer.register
def answer_layer(query: LayerQuery) -> LayerView:
    cached = CACHE.model(query.model)
    layer = cached.layer(query.layer)
    weight = cached.weight(layer)
    histogram = histogram_rows(
        layer.name, "original", weight, weight.min().item(), weight.max().item()
    )
    return LayerView(
        histogram=table(histogram, HistogramRow),
        channels=LayerComparison(layer, weight, weight).channels(),
        spectrum=CACHE.spectrum(cached, layer, weight),
    )


@answer.register
def answer_worker(query: WorkerQuery) -> WorkerFacts:
    import transformers  # noqa: F401  # as a question would, so that a missing package shows

    cuda = torch.cuda.is_available()
    return WorkerFacts(
        device=torch.cuda.get_device_name(0) if cuda else "cpu",
        cuda=cuda,
        threads=torch.get_num_threads(),
        pid=os.getpid(),
    )
