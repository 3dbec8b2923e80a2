"""One layer as the last step of a recipe would store it, from the first calibration examples."""

from dataclasses import replace
from typing import Any

import torch

from engine.calibration import CalibrationStream, Fold, InputStats
from engine.calibration.gradient_stats import GradientStats, accumulate_gradients
from engine.config.technique import Technique
from engine.errors import PlainError
from engine.evaluation.calibration_batches import Batch
from engine.evaluation.progress import ignore_progress
from engine.interactive import model_cache
from engine.interactive.model_cache import CACHE, CachedModel
from engine.models.layers import Layer, selected_layers
from engine.models.loaded_model import LoadedModel
from engine.models.loading import resolve_model
from engine.recipe import Recipe
from engine.runtime.threads import threads_to_judge
from engine.step.compressed_layer import CompressedLayer
from engine.step.layer_swap import LayerSwap
from engine.step.pruning_plan import TechniqueInput
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder
from engine.techniques.composed import compress_further
from engine.techniques.implementations import input_scales, plan, plan_removal, survey
from engine.tensors.weights import DenseWeight, StoredWeight

# other ranges require a search, so fewer weights are compared
QUICK_RANGES, COARSER = ("absmax", "rms"), 4


def cached_preview(recipe: Recipe, layer: str) -> CompressedLayer:
    """Preview of a layer, cached for the last few layers."""
    key = preview_key(CACHE.model(recipe.model), recipe, layer)
    return CACHE.previews.get(key) or preview(recipe, layer)


def preview_key(model: CachedModel, recipe: Recipe, layer: str) -> tuple[Any, ...]:
    return *model.key, layer, recipe.model_dump_json()


def preview(recipe: Recipe, layer: str) -> CompressedLayer:
    """Preview of a layer, computed now and cached for further questions."""
    model = CACHE.model(recipe.model)
    model_layer = model.layer(layer)
    out, in_ = model_layer.matrix_shape
    rows = max(1, min(out, live_weights(recipe.steps[-1]) // max(1, in_)))
    part = replace(model_layer, shape=(rows, *model_layer.shape[1:]))
    weight = CACHE.first_rows(model, model_layer, rows)
    torch.manual_seed(recipe.seed)
    compressed = (
        pruned_preview(recipe, model, model_layer)
        if recipe.steps[-1].removes_structures
        else compressed_by_all_steps(recipe, model, part, weight)
    )
    return CACHE.previews.keep(preview_key(model, recipe, layer), compressed)


def live_weights(config: Technique) -> int:
    """Number of weights that are compared while a control is dragged."""
    is_fast = getattr(config, "range", "absmax") in QUICK_RANGES
    return model_cache.LIVE_WEIGHTS // (1 if is_fast else COARSER)


def compressed_by_all_steps(
    recipe: Recipe, model: CachedModel, part: Layer, weight: torch.Tensor
) -> CompressedLayer:
    """A layer after all steps that keep its shape."""
    stored, zeros = DenseWeight(tuple(weight.shape), weight), False
    for step in (step for step in recipe.steps if not step.removes_structures):
        config = plan(step, [part])[part.name]
        stats = data_for(config, model, part.name, recipe, len(weight))
        with threads_to_judge(weight.numel()):
            stored, scales = compressed_layer(config, stored, stats, zeros)
        zeros = zeros or step.produces == "zeros"
    return CompressedLayer(recipe.steps[-1], config, part, weight, stats, stored, scales)


def compressed_layer(
    config: Technique,
    current: StoredWeight,
    stats: InputStats | GradientStats | None,
    keep_zeros: bool,
) -> tuple[StoredWeight, torch.Tensor | float]:
    """One layer as stored, and the scales of its columns, assuming that a norm before it could take
    them.
    """
    weight = current.to_dense()
    answer = (
        None
        if stats is None
        else input_scales(config, Fold("", (), from_norm=True), [weight], stats)
    )
    if answer is None:
        return compress_further(config, current, weight, stats, keep_zeros), 1.0
    scales, _ = answer
    return compress_further(
        config, current, weight * scales, stats.divided_by(scales), keep_zeros
    ), scales


def pruned_preview(recipe: Recipe, model: CachedModel, layer: Layer) -> CompressedLayer:
    """A layer without the structures that a step removes, chosen among all of the model with the
    first calibration examples.
    """
    config, current, technique_input = (
        recipe.steps[-1],
        model.stored_weight(layer),
        subject_of(recipe, model),
    )
    if config.needs == "nothing":
        small = plan_removal(config, technique_input)
    else:
        # scores do not depend on how much is removed
        amounts = {name: 0 for name in ("share", "count") if hasattr(config, name)}
        by = CACHE.by_examples(
            (*model.key, config.model_copy(update=amounts), recipe.layers),
            recipe,
            lambda batches: survey(
                config, replace(technique_input, layer_swap=trial_on(batches, recipe, model.opened))
            ),
        )
        small = plan_removal(config, technique_input, by)
    weight, stored = current.to_dense(torch.float32), small.sliced_weight(layer, current)
    return CompressedLayer(config, config, layer, weight, None, stored, 1.0, small)


def subject_of(recipe: Recipe, model: CachedModel) -> TechniqueInput:
    targets = frozenset(layer.name for layer in selected_layers(model.opened.layers, recipe.layers))
    return TechniqueInput(model.opened, resolve_model(recipe.model), targets)


def trial_on(batches: list[Batch], recipe: Recipe, loaded: LoadedModel) -> LayerSwap:
    """Layer swap on a cached model, computed on the CPU."""
    cpu_recipe = recipe.model_copy(update={"device": "cpu", "dtype": "float32"})
    return LayerSwap(
        RunContext(cpu_recipe, resolve_model(recipe.model)), loaded, batches, TableBuilder()
    )


# --- calibration data -----------------------------------------------------------------------------


def data_for(
    config: Technique, model: CachedModel, layer: str, recipe: Recipe, rows: int
) -> InputStats | GradientStats | None:
    """Data that a technique uses for a layer, limited to its first rows if it depends on rows."""
    if config.needs == "gradients":
        return gradients(model, layer, recipe).first_rows(rows)
    return None if config.needs == "nothing" else input_statistics(model, layer, recipe)


def input_statistics(model: CachedModel, layer: str, recipe: Recipe) -> InputStats:
    """Input statistics of one layer of the uncompressed model on the first calibration examples.
    Raises PlainError if there are none.
    """
    wants_gram = any(step.needs == "gram" for step in recipe.steps)
    loaded = model.opened
    stats = CACHE.by_examples(
        (*model.key, layer, wants_gram),
        recipe,
        lambda batches: (
            CalibrationStream(loaded.model, batches, loaded.device)
            .collect_stats("", [layer], wants_gram)
            .get(layer)
        ),
    )
    if stats is None:
        raise PlainError(
            f"The inputs of {layer} cannot be observed (an embedding or a grouped convolution); "
            "choose another layer."
        )
    return stats


def gradients(model: CachedModel, layer: str, recipe: Recipe) -> GradientStats:
    """Gradients of the loss with respect to one layer's weights, on the first calibration examples.
    Raises PlainError if it has none.
    """
    loaded = model.opened
    found = CACHE.by_examples(
        (*model.key, layer, "gradients"),
        recipe,
        lambda batches: accumulate_gradients(
            loaded.model, [layer], batches, loaded.device, ignore_progress
        ).get(layer),
    )
    if found is None:
        raise PlainError(
            f"The loss does not depend on {layer} on these examples; choose another layer."
        )
    return found
