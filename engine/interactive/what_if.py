"""Effect of a setting on one layer."""

import time

from engine.calibration import Seen
from engine.interactive.layer_preview import Look, preview
from engine.interactive.registry import answer
from engine.measurement.error import Judged, level_rows
from engine.pipeline.pruned_writer import changed_row, histogram
from engine.queries import WhatIfQuery
from engine.results.schema.query_results import WhatIf
from engine.results.schema.tables import HistogramRow, LevelRow, table
from engine.runtime.threads import threads_to_judge


@answer.register
def answer_what_if(query: WhatIfQuery) -> WhatIf:
    """Steps that use data get a few calibration examples, which run through the model once."""
    began = time.perf_counter()
    look = preview(query.recipe, query.layer)
    with threads_to_judge(look.weight.numel()):
        return effect(look, query.layer, began)


def effect(look: Look, layer: str, began: float) -> WhatIf:
    """Comparison of a layer before and after; ``began`` is when the question started."""
    judged = Judged(look.part, look.weight, look.stored.dense() / look.scales)
    inputs = look.seen.sample_vectors() if isinstance(look.seen, Seen) else None
    received = (
        None
        if inputs is None
        else (inputs, look.stored.received(inputs / look.scales) * look.scales)
    )
    if look.rebuilt:
        row = changed_row(judged, look.stored, look.rebuilt, look.how.technique)
        bins = histogram(judged, look.stored)
    else:
        row = judged.row(look.stored, look.how.technique, received)
        bins = judged.histogram()
    levels = level_rows(layer, look.stored) if isinstance(look.scales, float) else ()
    return WhatIf(
        row=row,
        histogram=table(bins, HistogramRow),
        levels=table(levels, LevelRow),
        channels=judged.channels(),
        milliseconds=(time.perf_counter() - began) * 1000,
        weights=judged.original.numel(),
    )
