"""One layer as the last step of a recipe would store it, from the first calibration examples."""

from dataclasses import dataclass, replace

import torch

from engine.calibration import Fold, Seen, Stream
from engine.calibration.gradient_stats import Slopes, slopes_of
from engine.config.technique import Technique
from engine.errors import PlainError
from engine.evaluation.calibration_batches import Batch
from engine.evaluation.progress import silent
from engine.interactive import model_cache
from engine.interactive.model_cache import CACHE, CachedModel
from engine.models.layers import Layer, chosen
from engine.models.loaded_model import Opened
from engine.models.loading import resolve
from engine.recipe import Recipe
from engine.runtime.threads import threads_to_judge
from engine.step.layer_swap import Trial
from engine.step.pruning_plan import Rebuilt, Subject
from engine.step.run_context import Bench, Rows
from engine.techniques.implementations import plan, rebuild, scales_for, survey
from engine.techniques.pruning.options import Shrinking
from engine.techniques.training.composed import compress_further
from engine.tensors.weights import Dense, Stored

# other ranges are searched for, so fewer weights are compared
QUICK_RANGES, COARSER = ("absmax", "rms"), 4


@dataclass(frozen=True)
class Look:
    """One layer as a step would store it."""

    asked: Technique
    how: Technique  # this layer's setting
    part: Layer  # its first rows, where it is very large
    weight: torch.Tensor  # (out, in_) float32
    seen: Seen | Slopes | None
    stored: Stored
    scales: torch.Tensor | float  # what its columns were multiplied by before, (in_,)
    rebuilt: Rebuilt | None = None  # what stays of the whole model, where structures are taken out


def cached_preview(recipe: Recipe, layer: str) -> Look:
    """Preview of a layer, computed unless it is one of the last ones."""
    key = preview_key(CACHE.model(recipe.model), recipe, layer)
    return CACHE.previews.get(key) or preview(recipe, layer)


def preview_key(model: CachedModel, recipe: Recipe, layer: str) -> tuple:
    return *model.key, layer, recipe.model_dump_json()


def preview(recipe: Recipe, layer: str) -> Look:
    """Preview of a layer, computed now and kept for further questions."""
    model = CACHE.model(recipe.model)
    known = model.layer(layer)
    out, in_ = known.matrix_shape
    rows = max(1, min(out, live_weights(recipe.steps[-1]) // max(1, in_)))
    part = replace(known, shape=(rows, *known.shape[1:]))
    weight = CACHE.first_rows(model, known, rows)
    torch.manual_seed(recipe.seed)
    look = (
        narrowed(recipe, model, known)
        if isinstance(recipe.steps[-1], Shrinking)
        else compressed(recipe, model, part, weight)
    )
    return CACHE.previews.keep(preview_key(model, recipe, layer), look)


def live_weights(how: Technique) -> int:
    """Number of weights that are compared while a control is dragged."""
    quick = getattr(how, "range", "absmax") in QUICK_RANGES
    return model_cache.LIVE_WEIGHTS // (1 if quick else COARSER)


def compressed(recipe: Recipe, model: CachedModel, part: Layer, weight: torch.Tensor) -> Look:
    """A layer after all steps that leave it in its shape."""
    stored, zeros = Dense(tuple(weight.shape), weight), False
    for each in (step for step in recipe.steps if not isinstance(step, Shrinking)):
        how = plan(each, [part])[part.name]
        seen = data_for(how, model, part.name, recipe, len(weight))
        with threads_to_judge(weight.numel()):
            stored, scales = compressed_layer(how, stored, seen, zeros)
        zeros = zeros or each.leaves == "zeros"
    return Look(recipe.steps[-1], how, part, weight, seen, stored, scales)


def compressed_layer(
    how: Technique, held: Stored, seen: Seen | Slopes | None, keep_zeros: bool
) -> tuple[Stored, torch.Tensor | float]:
    """One layer as it would be stored, and the scales of its columns, as if a norm before it could
    take them.
    """
    weight = held.dense()
    answer = None if seen is None else scales_for(how, Fold("", (), from_norm=True), [weight], seen)
    if answer is None:
        return compress_further(how, held, weight, seen, keep_zeros), 1.0
    scales, _ = answer
    return compress_further(how, held, weight * scales, seen.scaled(scales), keep_zeros), scales


def narrowed(recipe: Recipe, model: CachedModel, layer: Layer) -> Look:
    """A layer without what a step removes, chosen by the first calibration examples among all of
    the model.
    """
    how, held, subject = recipe.steps[-1], model.stored(layer), subject_of(recipe, model)
    if how.needs == "nothing":
        small = rebuild(how, subject)
    else:
        # scores do not depend on how much is removed
        amounts = {name: 0 for name in ("share", "count") if hasattr(how, name)}
        by = CACHE.by_examples(
            (*model.key, how.model_copy(update=amounts), recipe.layers),
            recipe,
            lambda batches: survey(
                how, replace(subject, trial=trial_on(batches, recipe, model.opened))
            ),
        )
        small = rebuild(how, subject, by)
    weight, stored = held.dense(torch.float32), small.narrowed(layer, held)
    return Look(how, how, layer, weight, None, stored, 1.0, small)


def subject_of(recipe: Recipe, model: CachedModel) -> Subject:
    targets = frozenset(layer.name for layer in chosen(model.opened.layers, recipe.layers))
    return Subject(model.opened, resolve(recipe.model), targets)


def trial_on(batches: list[Batch], recipe: Recipe, at: Opened) -> Trial:
    """Trial with a cached model, computed on the CPU."""
    here = recipe.model_copy(update={"device": "cpu", "dtype": "float32"})
    return Trial(Bench(here, resolve(recipe.model)), at, batches, Rows())


# --- calibration data -----------------------------------------------------------------------------


def data_for(
    how: Technique, model: CachedModel, layer: str, recipe: Recipe, rows: int
) -> Seen | Slopes | None:
    """Data that a technique uses for a layer, restricted to its first rows where that matters."""
    if how.needs == "gradients":
        return gradients(model, layer, recipe).of_rows(rows)
    return None if how.needs == "nothing" else input_statistics(model, layer, recipe)


def input_statistics(model: CachedModel, layer: str, recipe: Recipe) -> Seen:
    """Input statistics of one layer of the uncompressed model on the first calibration examples.
    Raises PlainError if there are none.
    """
    wants_gram = any(step.needs == "gram" for step in recipe.steps)
    at = model.opened
    seen = CACHE.by_examples(
        (*model.key, layer, wants_gram),
        recipe,
        lambda batches: (
            Stream(at.model, batches, at.device).look("", [layer], wants_gram).get(layer)
        ),
    )
    if seen is None:
        raise PlainError(
            f"The inputs of {layer} cannot be seen (an embedding or a grouped convolution); "
            "choose another layer."
        )
    return seen


def gradients(model: CachedModel, layer: str, recipe: Recipe) -> Slopes:
    """Gradients of the loss by one layer's weights, on the first calibration examples. Raises
    PlainError where it has none.
    """
    at = model.opened
    found = CACHE.by_examples(
        (*model.key, layer, "gradients"),
        recipe,
        lambda batches: slopes_of(at.model, [layer], batches, at.device, silent).get(layer),
    )
    if found is None:
        raise PlainError(
            f"The loss does not depend on {layer} on these examples; choose another layer."
        )
    return found
