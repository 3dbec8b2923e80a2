"""Ranks under a budget, answered while it is moved: the spectra of all layers are computed once and
kept.
"""

import time

import torch

from engine.errors import PlainError
from engine.evaluation import calibration_batches
from engine.interactive.model_cache import CACHE, CachedModel, live_calibration
from engine.interactive.registry import answer
from engine.models.layers import Layer, chosen
from engine.models.loaded_model import Opened
from engine.models.loading import resolve
from engine.queries import RankPlanQuery
from engine.recipe import Recipe
from engine.results.schema.query_results import PlannedRanks, PlannedRow
from engine.results.schema.tables import table
from engine.runtime.threads import one_thread
from engine.step.layer_swap import Trial
from engine.step.run_context import Bench, Rows
from engine.techniques.low_rank.ranks import Layered, rank_of_share
from engine.techniques.low_rank.svd.config import SVD
from engine.techniques.low_rank.svd.method import (
    layered_by,
    ranks_of,
    refuse_beyond_full,
    why_whole,
)

MOST_PRODUCTS = 1e11  # rows x columns x the smaller of both, over all layers: some minutes


@answer.register
def answer_rank_plan(query: RankPlanQuery) -> PlannedRanks:
    """The data are the first few calibration examples."""
    recipe = query.recipe
    (how,) = recipe.steps
    if not isinstance(how, SVD):
        raise PlainError(f"{how.title} has no ranks to share out; ask about SVD.")
    model = CACHE.model(recipe.model)
    at = model.opened
    layers = {layer.name: layer for layer in chosen(at.layers, recipe.layers)}
    refuse_beyond_full(how, list(layers.values()))
    spectra = spectra_of(model, recipe, list(layers.values()))
    began = time.perf_counter()
    ranks = ranks_by(how, spectra)
    rows = [planned_row(how, layers[name], spectra[name], ranks[name], at) for name in spectra]
    kept = sum(
        spectra[row.layer].whole if row.whole else row.rank * spectra[row.layer].step
        for row in rows
    )
    spent = (time.perf_counter() - began) * 1000
    return PlannedRanks(
        table(rows, PlannedRow), sum(each.whole for each in spectra.values()), kept, spent
    )


def spectra_of(model: CachedModel, recipe: Recipe, layers: list[Layer]) -> dict[str, Layered]:
    """Kept for as long as nothing changes but the budget. Raises PlainError for a model so large
    that it would take too long.
    """
    (how,) = recipe.steps
    data = recipe.calibration, recipe.task, recipe.layers

    def computed() -> dict[str, Layered]:
        refuse_large(layers)
        with one_thread():
            return layered_by(how, layers, trial_on(recipe, model.opened))

    key = *model.key, how.whitening, how.alpha, how.damping, *data
    return CACHE.rank_spectra.get_or_make(key, computed)


def refuse_large(layers: list[Layer]) -> None:
    products = sum(layer.parameters * min(layer.matrix_shape) for layer in layers)
    if products > MOST_PRODUCTS:
        raise PlainError(
            "The singular values of a model of this size take minutes, too long for a live "
            "answer; a run finds the ranks."
        )


def trial_on(recipe: Recipe, at: Opened) -> Trial:
    """Return a trial on a few calibration examples if the technique needs data."""
    folder = resolve(recipe.model)
    batches = (
        []
        if recipe.steps[0].needs == "nothing"
        else calibration_batches(live_calibration(recipe), recipe.task, folder)
    )
    return Trial(Bench(recipe, folder), at, batches, Rows())


def ranks_by(how: SVD, spectra: dict[str, Layered]) -> dict[str, int]:
    if how.by != "rank" and how.scope == "global":
        return ranks_of(how, spectra)
    return {name: rank_by(how, layer) for name, layer in spectra.items()}


def rank_by(how: SVD, layer: Layered) -> int:
    match how.by:
        case "rank":
            return min(how.rank, min(layer.shape))
        case "kept":
            return rank_of_share(layer.shape, how.kept)
        case _:
            return min(len(layer.energy), int((layer.energy < how.energy * (1 - 1e-12)).sum()) + 1)


def planned_row(how: SVD, layer: Layer, layered: Layered, rank: int, at: Opened) -> PlannedRow:
    whole = bool(why_whole(how, layered.shape, rank))
    held = at.held_bytes(layer)
    itemsize = layer.itemsize if how.factors == "model" else getattr(torch, how.factors).itemsize
    size = held if whole else rank * layered.step * itemsize
    lost = 0.0 if whole else max(0.0, 1 - layered.energy[rank - 1].item()) ** 0.5
    full, even = min(layered.shape), layered.whole / layered.step
    return PlannedRow(layer.name, full if whole else rank, full, even, whole, held, size, lost)
