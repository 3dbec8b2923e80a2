"""Input columns above the outlier threshold."""

import torch

from engine.results.schema.explanations import Explanation
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.explanations import empty_levels, frame, part_of
from engine.techniques.hooks import explanation
from engine.techniques.quantization.llm_int8.config import LLMInt8
from engine.techniques.quantization.llm_int8.tables import OutlierRow

COLUMNS = 96  # input columns in the explanation


@explanation.register
def explanation_llm_int8(config: LLMInt8, compressed: CompressedLayer) -> Explanation:
    largest = compressed.stats.abs_max
    strongest = largest.topk(min(COLUMNS, len(largest))).indices
    is_outlier = torch.isin(strongest, compressed.stored.columns.long())
    rows = frame(
        OutlierRow,
        column=strongest,
        largest=largest[strongest],
        threshold=config.threshold,
        apart=is_outlier,
    )
    return Explanation(
        OutlierRow,
        rows,
        empty_levels(),
        part_of("input columns", len(rows), len(largest)) + ", the largest inputs first",
    )
