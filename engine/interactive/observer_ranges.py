"""Ranges that the observers choose for one layer's inputs."""

import torch

from engine.calibration import Fold, Seen
from engine.errors import PlainError
from engine.interactive.layer_preview import input_statistics
from engine.interactive.model_cache import CACHE, live_calibration
from engine.interactive.registry import answer
from engine.measurement.error import histogram_rows
from engine.queries import RangesQuery
from engine.results.schema.query_results import Ranges
from engine.results.schema.tables import HistogramRow, ObserverRow, table
from engine.runtime.threads import one_thread
from engine.techniques.implementations import plan, scales_for
from engine.techniques.quantization.activations.config import Activations
from engine.techniques.quantization.observers import observer_rows


@answer.register
def answer_ranges(query: RangesQuery) -> Ranges:
    recipe, model = query.recipe, CACHE.model(query.recipe.model)
    layer = model.layer(query.layer)
    how = plan(recipe.steps[-1], [layer])[layer.name]
    if not isinstance(how, Activations):
        raise PlainError(
            f"{how.title} chooses no range for a layer's inputs; ask about a technique that "
            "quantizes activations."
        )
    statistics = input_statistics(model, layer.name, recipe)
    seen = scaled_inputs(how, model.weight(layer), statistics, query.scales)
    values = seen.sample()
    histogram = histogram_rows(
        layer.name, "original", values, values.min().item(), values.max().item()
    )
    with one_thread():
        observers = observer_rows(layer.name, seen, how)
    return Ranges(
        histogram=table(histogram, HistogramRow),
        observers=table(observers, ObserverRow),
        examples=live_calibration(recipe).samples,
    )


def scaled_inputs(
    how: Activations, weight: torch.Tensor, seen: Seen, scales: tuple[float, ...] | None
) -> Seen:
    """Inputs of the layer divided by the scales. Raises PlainError for scales of another width."""
    if scales is None:
        answer = scales_for(how, Fold("", (), from_norm=True), [weight], seen)
        return seen if answer is None else seen.scaled(answer[0])
    if len(scales) * seen.area != seen.width:
        raise PlainError(
            f"{len(scales)} scales were given for {seen.width // seen.area} input channels; "
            "give one for each."
        )
    return seen.scaled(torch.tensor(scales, device=seen.device).repeat_interleave(seen.area))
