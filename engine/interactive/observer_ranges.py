"""Ranges that the observers choose for one layer's inputs."""

import torch

from engine.calibration import Fold, InputStats
from engine.config.technique import Technique
from engine.errors import PlainError
from engine.interactive.layer_preview import input_statistics
from engine.interactive.model_cache import CACHE, live_calibration
from engine.interactive.registry import answer
from engine.measurement.error import histogram_rows
from engine.queries import RangesQuery
from engine.results.schema.query_results import InputRanges
from engine.results.schema.tables import HistogramRow, ObserverRow, table
from engine.runtime.threads import one_thread
from engine.techniques.implementations import input_scales, plan, range_rows


@answer.register
def answer_ranges(query: RangesQuery) -> InputRanges:
    recipe, model = query.recipe, CACHE.model(query.recipe.model)
    layer = model.layer(query.layer)
    config = plan(recipe.steps[-1], [layer])[layer.name]
    if "input-ranges" not in config.live_views:
        raise PlainError(
            f"{config.title} chooses no range for a layer's inputs; ask about a technique that "
            "quantizes activations."
        )
    statistics = input_statistics(model, layer.name, recipe)
    stats = scaled_inputs(config, model.weight(layer), statistics, query.scales)
    values = stats.sample()
    histogram = histogram_rows(
        layer.name, "original", values, values.min().item(), values.max().item()
    )
    with one_thread():
        observers = range_rows(config, layer.name, stats)
    return InputRanges(
        histogram=table(histogram, HistogramRow),
        observers=table(observers, ObserverRow),
        examples=live_calibration(recipe).samples,
    )


def scaled_inputs(
    config: Technique, weight: torch.Tensor, stats: InputStats, scales: tuple[float, ...] | None
) -> InputStats:
    """Inputs of the layer divided by the scales. Raises PlainError for scales of another width."""
    if scales is None:
        answer = input_scales(config, Fold("", (), from_norm=True), [weight], stats)
        return stats if answer is None else stats.divided_by(answer[0])
    if len(scales) * stats.area != stats.width:
        raise PlainError(
            f"{len(scales)} scales were given for {stats.width // stats.area} input channels; "
            "give one for each."
        )
    return stats.divided_by(torch.tensor(scales, device=stats.device).repeat_interleave(stats.area))
