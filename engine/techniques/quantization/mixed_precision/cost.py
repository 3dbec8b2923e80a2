"""Workload of the search for each layer's bits."""

from engine.step.workload import SearchWork
from engine.techniques.hooks import search_work
from engine.techniques.quantization.mixed_precision.config import MixedPrecision


@search_work.register
def search_work_mixed_precision(config: MixedPrecision, layers: int) -> SearchWork:
    if config.by == "name":
        return SearchWork()
    candidates = len(config.candidates())
    return SearchWork(
        answers=layers * (candidates + 1) + 2,
        examples=config.examples,
        roundings=2 * candidates,
    )
