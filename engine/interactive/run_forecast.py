"""Forecast of a run: size to the byte, time and memory within a factor of two."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import dropwhile

from engine.calibration.activation_stats import reader_of, seeable
from engine.config.technique import Technique
from engine.forecast import Job, cost_of
from engine.forecast.data_volume import notes_on_data
from engine.interactive.layer_preview import subject_of
from engine.interactive.model_cache import CACHE, CachedModel
from engine.interactive.registry import answer
from engine.measurement.size import bits_per_parameter, origin_of_rebuilt, written_bytes
from engine.models.layers import Layer, chosen
from engine.models.loaded_model import Opened
from engine.models.origin import Origin
from engine.pipeline.included_layers import notes_on_included
from engine.pipeline.preflight import refuse_noise, refuse_steps
from engine.pipeline.pruned_writer import rebuilt_bytes
from engine.queries import ForecastQuery, PastRun
from engine.recipe import Recipe
from engine.results.schema.query_results import Forecast
from engine.techniques.distillation.distill.config import FineTune
from engine.techniques.implementations import outlined, plan, rebuild
from engine.techniques.pruning.blocks.config import Blocks
from engine.techniques.pruning.blocks.method import differ_in_size
from engine.techniques.training.composed import sketched
from engine.tensors.weights import Stored

BLOCKS_DIFFER = (
    "The model's blocks differ in size, so the size that is left depends on which of them the "
    "calibration data chooses."
)


@answer.register
def answer_forecast(query: ForecastQuery) -> Forecast:
    """The size is exact unless scales turn out to need float32."""
    recipe, model = query.recipe, CACHE.model(query.recipe.model)
    refuse_steps(recipe, model.folder, at_hand=True)
    forecast = of_steps(recipe, model, query.past)
    notes, tokens = notes_on_data(recipe, model.folder)
    for step in recipe.steps:
        refuse_noise(step, chosen(model.opened.layers, recipe.layers), tokens)
    differ = any(isinstance(step, Blocks) for step in recipe.steps) and differ_in_size(
        subject_of(recipe, model)
    )
    notes = *notes, *notes_on_included(recipe, model.opened), *([BLOCKS_DIFFER] if differ else [])
    return replace(forecast, notes=notes)


def of_steps(recipe: Recipe, model: CachedModel, past: PastRun | None) -> Forecast:
    """Forecast of size, time and memory."""
    at, steps = model.opened, shaping(recipe.steps)
    heir = outlined(steps[0], subject_of(recipe, model)) if steps else None
    if heir:
        return of_heir(recipe, model, heir, steps[1:], past)
    small = rebuild(steps[0], subject_of(recipe, model)) if steps else None
    rest, layers = (
        steps[1:] if small else steps,
        [after for _, after in small.layers(at.layers)] if small else at.layers,
    )
    targets = chosen(layers, recipe.layers) if recipe.steps else []
    planned = [plan(step, targets) for step in rest]
    plans = blueprints(planned, targets, at)
    size = (
        rebuilt_bytes(at, small, plans)
        if small
        else written_bytes(at, plans)
        if plans
        else at.size_bytes
    )
    origin = origin_of_rebuilt(at, small) if small else at.origin
    held = (
        {
            after.name: small.sketch(layer, model.stored(layer))
            for layer, after in small.layers(at.layers)
        }
        if small
        else {}
    )
    held = held or {layer.name: model.stored(layer) for layer in at.layers}
    bits = planned_bits_per_weight(held | plans, layers, plans.keys(), origin)
    changed = (
        sum(small.changes(layer.name) for layer in chosen(at.layers, recipe.layers))
        if small and not rest
        else len(plans)
    )
    return forecast_of(recipe, model, planned, past, size, bits, origin, changed)


def of_heir(
    recipe: Recipe,
    model: CachedModel,
    heir: Opened,
    rest: Sequence[Technique],
    past: PastRun | None,
) -> Forecast:
    """Forecast for a replacement model, which later steps compress."""
    targets = chosen(heir.layers, recipe.layers)
    planned = [plan(step, targets) for step in rest]
    plans = blueprints(planned, targets, heir)
    size = written_bytes(heir, plans)
    held = {
        layer.name: heir.model.get_submodule(layer.name).stored
        for layer in heir.layers
        if not layer.tied_to
    } | plans
    bits = planned_bits_per_weight(held, heir.layers, set(plans), heir.origin)
    changed = len(plans or held)
    return forecast_of(recipe, model, planned, past, size, bits, heir.origin, changed)


def forecast_of(
    recipe: Recipe,
    model: CachedModel,
    planned: list[dict[str, Technique]],
    past: PastRun | None,
    size: int,
    bits: float,
    origin: Origin,
    layers: int,
) -> Forecast:
    cost = cost_of(job_of(recipe, model, planned), past)
    return Forecast(
        size_bytes=size,
        bits_per_weight=bits,
        bits_per_parameter=bits_per_parameter(size, origin),
        compression=model.opened.size_bytes / size,
        seconds=cost.seconds,
        peak_rss_bytes=cost.peak_rss_bytes,
        layers=layers,
        at_least=any(step.size_depends_on_data for step in recipe.steps),
        at_most=any(step.size_is_at_most for step in recipe.steps),
    )


def shaping(steps: Sequence[Technique]) -> Sequence[Technique]:
    """Steps that determine the stored format: others keep shapes and formats, or the next step
    stores their result again.
    """
    left = [step for step in steps if not isinstance(step, FineTune)]
    return list(dropwhile(lambda step: step.leaves == "dense", left)) or left[-1:] or steps[:1]


def planned_bits_per_weight(
    held: dict[str, Stored], layers: list[Layer], targets: set[str], origin: Origin
) -> float:
    """Forecast of ``bits_per_weight``.

    ``held``: planned storage of all layers; ``targets``: layers compressed in their present shapes;
    ``origin``: counts before these steps.
    """
    counts = {
        layer.name: origin.compressed.get(layer.name, layer.parameters)
        for layer in layers
        if not layer.tied_to
    }
    compressed = (
        targets | origin.compressed.keys()
        if targets or origin.compressed_parameters
        else counts.keys()
    )
    return (
        sum(held[name].nbytes for name in compressed)
        * 8
        / (sum(counts.get(name, 0) for name in compressed) + origin.removed)
    )


def job_of(recipe: Recipe, model: CachedModel, planned: list[dict[str, Technique]]) -> Job:
    """The last step, with those before it."""
    first = Job(recipe, model.folder, model.key, model.opened, {}, model.opening_seconds)
    recipes = [recipe.model_copy(update={"steps": (step,)}) for step in recipe.steps]
    # a step that takes structures out has none
    settings = [{}] * (len(recipes) - len(planned)) + planned
    each = [
        replace(first, recipe=recipe, settings=mine)
        for recipe, mine in zip(recipes, settings, strict=True)
    ]
    return replace(each[-1], earlier=tuple(each[:-1])) if each else first


def blueprints(
    planned: list[dict[str, Technique]], targets: list[Layer], at: Opened
) -> dict[str, Stored]:
    """Planned storage after all steps of each layer that any of them changes; ``planned``: the
    setting of each layer, step by step.
    """
    steps = {
        layer.name: [
            mine for settings in planned if sees(mine := settings[layer.name], layer.name, at)
        ]
        for layer in targets
    }
    return {
        layer.name: sketched(steps[layer.name], layer.matrix_shape)
        for layer in targets
        if steps[layer.name]
    }


def sees(setting: Technique, name: str, at: Opened) -> bool:
    """Return True if the technique needs no layer inputs or can observe them; otherwise the layer
    is left unchanged.
    """
    return (
        setting.trains
        or setting.needs not in ("range", "gram")
        or seeable(reader_of(at.model, name))
    )
