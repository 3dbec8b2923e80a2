"""Forecast of a run: exact size in bytes; time and memory within a factor of two."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import dropwhile

from engine.calibration.activation_stats import has_observable_inputs, input_reader
from engine.config.technique import Technique
from engine.forecast import Job, cost_of
from engine.forecast.data_volume import notes_on_data
from engine.interactive.layer_preview import subject_of
from engine.interactive.model_cache import CACHE, CachedModel
from engine.interactive.registry import answer
from engine.measurement.size import bits_per_parameter, origin_of_rebuilt, written_bytes
from engine.models.layers import Layer, selected_layers
from engine.models.loaded_model import LoadedModel
from engine.models.origin import Origin
from engine.pipeline.included_layers import included_layer_notes
from engine.pipeline.preflight import check_calibration_size, check_steps
from engine.pipeline.pruned_writer import pruned_model_bytes
from engine.queries import ForecastQuery, PastRun
from engine.recipe import Recipe
from engine.results.schema.query_results import Forecast
from engine.techniques.composed import storage_plan_of_steps
from engine.techniques.implementations import (
    forecast_notes,
    plan,
    plan_removal,
    replacement_outline,
)
from engine.tensors.weights import StoredWeight


@answer.register
def answer_forecast(query: ForecastQuery) -> Forecast:
    """Answer with a forecast. The size is exact unless scales have to be stored in float32."""
    recipe, model = query.recipe, CACHE.model(query.recipe.model)
    check_steps(recipe, model.folder, local_only=True)
    forecast = steps_forecast(recipe, model, query.past)
    notes, tokens = notes_on_data(recipe, model.folder)
    for step in recipe.steps:
        check_calibration_size(step, selected_layers(model.opened.layers, recipe.layers), tokens)
    technique_input = subject_of(recipe, model)
    step_notes = [note for step in recipe.steps for note in forecast_notes(step, technique_input)]
    notes = *notes, *included_layer_notes(recipe, model.opened), *dict.fromkeys(step_notes)
    return replace(forecast, notes=notes)


def steps_forecast(recipe: Recipe, model: CachedModel, past: PastRun | None) -> Forecast:
    """Forecast of size, time and memory."""
    loaded, steps = model.opened, storing_steps(recipe.steps)
    replacement = replacement_outline(steps[0], subject_of(recipe, model)) if steps else None
    if replacement:
        return replacement_forecast(recipe, model, replacement, steps[1:], past)
    small = plan_removal(steps[0], subject_of(recipe, model)) if steps else None
    other_steps, layers = (
        steps[1:] if small else steps,
        [after for _, after in small.layers(loaded.layers)] if small else loaded.layers,
    )
    targets = selected_layers(layers, recipe.layers) if recipe.steps else []
    planned = [plan(step, targets) for step in other_steps]
    plans = storage_plans(planned, targets, loaded)
    size = (
        pruned_model_bytes(loaded, small, plans)
        if small
        else written_bytes(loaded, plans)
        if plans
        else loaded.size_bytes
    )
    origin = origin_of_rebuilt(loaded, small) if small else loaded.origin
    stored = (
        {
            after.name: small.planned_weight(layer, model.stored_weight(layer))
            for layer, after in small.layers(loaded.layers)
        }
        if small
        else {}
    )
    stored = stored or {layer.name: model.stored_weight(layer) for layer in loaded.layers}
    bits = planned_bits_per_weight(stored | plans, layers, plans.keys(), origin)
    changed = (
        sum(small.changes(layer.name) for layer in selected_layers(loaded.layers, recipe.layers))
        if small and not other_steps
        else len(plans)
    )
    return forecast_of(recipe, model, planned, past, size, bits, origin, changed)


def replacement_forecast(
    recipe: Recipe,
    model: CachedModel,
    replacement: LoadedModel,
    other_steps: Sequence[Technique],
    past: PastRun | None,
) -> Forecast:
    """Forecast for a replacement model, which later steps compress."""
    targets = selected_layers(replacement.layers, recipe.layers)
    planned = [plan(step, targets) for step in other_steps]
    plans = storage_plans(planned, targets, replacement)
    size = written_bytes(replacement, plans)
    stored = {
        layer.name: replacement.model.get_submodule(layer.name).stored
        for layer in replacement.layers
        if not layer.tied_to
    } | plans
    bits = planned_bits_per_weight(stored, replacement.layers, set(plans), replacement.origin)
    changed = len(plans or stored)
    return forecast_of(recipe, model, planned, past, size, bits, replacement.origin, changed)


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
    cost = cost_of(forecast_job(recipe, model, planned), past)
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


def storing_steps(steps: Sequence[Technique]) -> Sequence[Technique]:
    """Steps that determine the stored format. Others keep shapes and formats, or the next step
    replaces their result.
    """
    left = [step for step in steps if not step.keeps_storage]
    return list(dropwhile(lambda step: step.produces == "dense", left)) or left[-1:] or steps[:1]


def planned_bits_per_weight(
    stored: dict[str, StoredWeight], layers: list[Layer], targets: set[str], origin: Origin
) -> float:
    """Forecast of ``bits_per_weight``. ``stored``: planned storage of all layers; ``targets``:
    layers compressed in their present shapes; ``origin``: counts before these steps.
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
        sum(stored[name].nbytes for name in compressed)
        * 8
        / (sum(counts.get(name, 0) for name in compressed) + origin.removed)
    )


def forecast_job(recipe: Recipe, model: CachedModel, planned: list[dict[str, Technique]]) -> Job:
    """Job of the last step, with those before it."""
    first = Job(recipe, model.folder, model.key, model.opened, {}, model.opening_seconds)
    recipes = [recipe.model_copy(update={"steps": (step,)}) for step in recipe.steps]
    # a step that removes structures has no settings
    settings = [{}] * (len(recipes) - len(planned)) + planned
    jobs = [
        replace(first, recipe=recipe, settings=recipe_settings)
        for recipe, recipe_settings in zip(recipes, settings, strict=True)
    ]
    return replace(jobs[-1], earlier=tuple(jobs[:-1])) if jobs else first


def storage_plans(
    planned: list[dict[str, Technique]], targets: list[Layer], loaded: LoadedModel
) -> dict[str, StoredWeight]:
    """Planned storage of each layer that any step changes, after all steps; ``planned``: the
    setting of each layer, step by step.
    """
    steps = {
        layer.name: [
            config
            for settings in planned
            if can_observe_inputs(config := settings[layer.name], layer.name, loaded)
        ]
        for layer in targets
    }
    return {
        layer.name: storage_plan_of_steps(steps[layer.name], layer.matrix_shape)
        for layer in targets
        if steps[layer.name]
    }


def can_observe_inputs(setting: Technique, name: str, loaded: LoadedModel) -> bool:
    """Return True if the technique needs no layer inputs or can observe them; otherwise the layer
    is left unchanged.
    """
    return (
        setting.trains
        or setting.needs not in ("range", "gram")
        or has_observable_inputs(input_reader(loaded.model, name))
    )
