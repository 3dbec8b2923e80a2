"""Effect of a setting on one layer."""

import time

from engine.calibration import InputStats
from engine.interactive.layer_preview import preview
from engine.interactive.registry import answer
from engine.measurement.error import LayerComparison, level_rows
from engine.pipeline.pruned_writer import changed_row, pruned_histogram_rows
from engine.queries import WhatIfQuery
from engine.results.schema.query_results import LayerPreview
from engine.results.schema.tables import HistogramRow, LevelRow, table
from engine.runtime.threads import threads_to_judge
from engine.step.compressed_layer import CompressedLayer


@answer.register
def answer_what_if(query: WhatIfQuery) -> LayerPreview:
    """Effect of a setting on one layer. Steps that use data get a few calibration examples, which
    run through the model once.
    """
    start = time.perf_counter()
    compressed = preview(query.recipe, query.layer)
    with threads_to_judge(compressed.weight.numel()):
        return effect(compressed, query.layer, start)


def effect(compressed: CompressedLayer, layer: str, start: float) -> LayerPreview:
    """Comparison of a layer before and after; ``start`` is the time of the question."""
    comparison = LayerComparison(
        compressed.part, compressed.weight, compressed.stored.to_dense() / compressed.scales
    )
    inputs = compressed.stats.sample_vectors() if isinstance(compressed.stats, InputStats) else None
    received = (
        None
        if inputs is None
        else (
            inputs,
            compressed.stored.quantized_inputs(inputs / compressed.scales) * compressed.scales,
        )
    )
    if compressed.pruning_plan:
        row = changed_row(
            comparison, compressed.stored, compressed.pruning_plan, compressed.config.technique
        )
        bins = pruned_histogram_rows(comparison, compressed.stored)
    else:
        row = comparison.row(compressed.stored, compressed.config.technique, received)
        bins = comparison.histogram()
    levels = level_rows(layer, compressed.stored) if isinstance(compressed.scales, float) else ()
    return LayerPreview(
        row=row,
        histogram=table(bins, HistogramRow),
        levels=table(levels, LevelRow),
        channels=comparison.channels(),
        milliseconds=(time.perf_counter() - start) * 1000,
        weights=comparison.original.numel(),
    )
