"""Rank of each layer under a budget. The spectra of all layers are computed once and cached, so
moving the budget is fast.
"""

import time

import torch

from engine.errors import PlainError
from engine.evaluation import calibration_batches
from engine.interactive.model_cache import CACHE, CachedModel, live_calibration
from engine.interactive.registry import answer
from engine.models.layers import Layer, selected_layers
from engine.models.loaded_model import LoadedModel
from engine.models.loading import resolve_model
from engine.queries import RankPlanQuery
from engine.recipe import Recipe
from engine.results.schema.query_results import PlannedRanks, PlannedRow
from engine.results.schema.tables import table
from engine.runtime.threads import one_thread
from engine.step.layer_swap import LayerSwap
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder
from engine.techniques.low_rank.ranks import LayerEnergy, rank_of_share
from engine.techniques.low_rank.svd.config import SVD
from engine.techniques.low_rank.svd.method import (
    budget_ranks,
    check_rank,
    layer_energies,
    why_unfactored,
)

MAX_PRODUCTS = 1e11  # rows x columns x the smaller of both, over all layers: some minutes


@answer.register
def answer_rank_plan(query: RankPlanQuery) -> PlannedRanks:
    """Calibration data are the first few examples."""
    recipe = query.recipe
    (config,) = recipe.steps
    if not isinstance(config, SVD):
        raise PlainError(f"{config.title} has no ranks to allocate; choose SVD.")
    model = CACHE.model(recipe.model)
    loaded = model.opened
    layers = {layer.name: layer for layer in selected_layers(loaded.layers, recipe.layers)}
    check_rank(config, list(layers.values()))
    spectra = spectra_of(model, recipe, list(layers.values()))
    start = time.perf_counter()
    ranks = ranks_by(config, spectra)
    rows = [
        planned_row(config, layers[name], spectra[name], ranks[name], loaded) for name in spectra
    ]
    kept_parameters = sum(
        spectra[row.layer].dense_parameters if row.whole else row.rank * spectra[row.layer].step
        for row in rows
    )
    milliseconds = (time.perf_counter() - start) * 1000
    return PlannedRanks(
        table(rows, PlannedRow),
        sum(spectrum.dense_parameters for spectrum in spectra.values()),
        kept_parameters,
        milliseconds,
    )


def spectra_of(model: CachedModel, recipe: Recipe, layers: list[Layer]) -> dict[str, LayerEnergy]:
    """Spectra of all layers, cached for all budgets. Raises PlainError for a model so large that it
    would take too long.
    """
    (config,) = recipe.steps
    data = recipe.calibration, recipe.task, recipe.layers

    def compute_spectra() -> dict[str, LayerEnergy]:
        check_model_size(layers)
        with one_thread():
            return layer_energies(config, layers, calibration_trial(recipe, model.opened))

    key = *model.key, config.whitening, config.alpha, config.damping, *data
    return CACHE.rank_spectra.get_or_make(key, compute_spectra)


def check_model_size(layers: list[Layer]) -> None:
    products = sum(layer.parameters * min(layer.matrix_shape) for layer in layers)
    if products > MAX_PRODUCTS:
        raise PlainError(
            "The singular values of a model of this size take minutes, too long for a live "
            "answer; a run finds the ranks."
        )


def calibration_trial(recipe: Recipe, loaded: LoadedModel) -> LayerSwap:
    """Return a layer swap on a few calibration examples if the technique needs data."""
    folder = resolve_model(recipe.model)
    batches = (
        []
        if recipe.steps[0].needs == "nothing"
        else calibration_batches(live_calibration(recipe), recipe.task, folder)
    )
    return LayerSwap(RunContext(recipe, folder), loaded, batches, TableBuilder())


def ranks_by(config: SVD, spectra: dict[str, LayerEnergy]) -> dict[str, int]:
    if config.by != "rank" and config.scope == "global":
        return budget_ranks(config, spectra)
    return {name: rank_by(config, layer) for name, layer in spectra.items()}


def rank_by(config: SVD, layer: LayerEnergy) -> int:
    match config.by:
        case "rank":
            return min(config.rank, min(layer.shape))
        case "kept":
            return rank_of_share(layer.shape, config.kept)
        case _:
            return min(
                len(layer.energy), int((layer.energy < config.energy * (1 - 1e-12)).sum()) + 1
            )


def planned_row(
    config: SVD, layer: Layer, layered: LayerEnergy, rank: int, loaded: LoadedModel
) -> PlannedRow:
    unfactored = bool(why_unfactored(config, layered.shape, rank))
    stored_bytes = loaded.stored_bytes(layer)
    itemsize = (
        layer.itemsize if config.factors == "model" else getattr(torch, config.factors).itemsize
    )
    size = stored_bytes if unfactored else rank * layered.step * itemsize
    error = 0.0 if unfactored else max(0.0, 1 - layered.energy[rank - 1].item()) ** 0.5
    full, even = min(layered.shape), layered.dense_parameters / layered.step
    return PlannedRow(
        layer.name, full if unfactored else rank, full, even, unfactored, stored_bytes, size, error
    )
