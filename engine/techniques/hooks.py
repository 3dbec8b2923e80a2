"""Hooks that a technique may implement, dispatched on the type of its config. Each is a pure
function of its arguments.

In the order of a run:

equivalent_weights  weights of the same function, moved between layers and blocks
survey              statistics from calibration data for the whole model
plan                one frozen setting per layer; global budgets are solved here
input_scales        factors for a layer's inputs, folded into the module before it
compress            the packed tensor of one layer
storage_plan        shapes and dtypes of that tensor without values, for forecasts
with_adapter        a stored layer with an addition, such as a low-rank correction
diagnostics         tables about a compressed layer

Techniques that train do so before layers are compressed: ``train_weights`` returns the weights to
store. Techniques that train another model replace the whole model (``train_replacement``); its
shapes are known before (``replacement_outline``). Techniques that change shapes do not compress
layer by layer: ``plan_removal`` returns what remains of each layer, given the result of ``survey``.

Outside a run, ``search_work``, ``training_work``, ``layer_operations`` and ``forecast_notes``
describe a technique's work to the forecast (in its ``cost.py``), and ``explanation`` shows it on
one layer (in its ``explain.py``).
"""

from functools import singledispatch
from typing import Any

import torch

from engine.calibration import Fold, InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.config.technique import Technique
from engine.models.layers import Layer
from engine.models.loaded_model import LoadedModel
from engine.models.model_source import ModelSource
from engine.recipe import Recipe
from engine.results.schema.explanations import Explanation
from engine.results.schema.tables import ObserverRow
from engine.step.compressed_layer import CompressedLayer
from engine.step.equivalent_weights import EquivalentWeights
from engine.step.layer_swap import LayerSwap
from engine.step.pruning_plan import PruningPlan, TechniqueInput
from engine.step.replacement_model import ReplacementModel
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder
from engine.step.trained_weights import TrainedWeights
from engine.step.workload import SearchWork, TrainingWork
from engine.tensors.weights import DenseWeight, StoredWeight
from engine.training.trainer import EVALUATIONS


@singledispatch
def equivalent_weights(
    config: Technique, technique_input: TechniqueInput
) -> EquivalentWeights | None:
    """Return new weights of any layers, norms and biases with which the model computes the same
    function; None to leave the model as it is.

    For changes of basis that run through several blocks, such as folding a norm's scale into the
    layers that follow it, or rotating the residual stream (QuaRot, SpinQuant). It is called once
    per step, before calibration data is read: statistics, ``plan``, ``compress`` and all errors of
    the step refer to the new weights.

    The hook may change the values of every layer, also of layers that the recipe skips, and of
    norms, biases and positions. It must keep all shapes and number formats, the tie between layers
    that share a tensor, and config.json; and it must not write to the tensors of ``subject``, which
    may be mapped to the model's files. ``subject.layer_swap`` is None, since no data has been read.
    """
    return None


@singledispatch
def plan(
    config: Technique, layers: list[Layer], layer_swap: LayerSwap | None = None
) -> dict[str, Technique]:
    """Return the setting of each layer by name; by default all layers have the same. ``layer_swap``
    measures the effect of changed layers on the model's outputs; it is None in a forecast.
    """
    return {layer.name: config for layer in layers}


@singledispatch
def compress(
    config: Technique, weight: torch.Tensor, stats: InputStats | None = None
) -> StoredWeight:
    """Return one layer's weight, (out, in_) float32, as it would be stored. ``stats`` are the
    statistics of its inputs that the technique needs.
    """
    raise TypeError(f"no method implements {type(config).__name__}")


@singledispatch
def input_scales(
    config: Technique, fold: Fold, weights: list[torch.Tensor], stats: InputStats
) -> tuple[torch.Tensor, list[tuple[float, float]]] | None:
    """Return scales for the inputs of layers that share one, (in_,), with the (alpha, error) that
    were tried; None to leave the inputs unscaled.
    """
    return None


@singledispatch
def storage_plan(config: Technique, shape: tuple[int, int]) -> StoredWeight:
    """Return the result of ``compress`` for a weight of this shape with tensors without values
    (device meta).
    """
    raise TypeError(f"no method forecasts {type(config).__name__}")


@singledispatch
def with_adapter(config: Technique, stored: StoredWeight) -> StoredWeight | None:
    """Return ``stored``, which may be a storage plan, with what the technique adds to it; None if
    the layer is stored again.
    """
    return None


@singledispatch
def diagnostics(
    config: Technique,
    layer: str,
    weight: torch.Tensor,
    stored: StoredWeight,
    stats: InputStats | GradientStats | None,
) -> TableBuilder:
    """Return table rows about one layer that only this technique has."""
    return TableBuilder()


@singledispatch
def survey(config: Technique, technique_input: TechniqueInput) -> Any:
    """Collect the statistics for ``plan_removal``, which do not depend on how much is removed."""
    return None


@singledispatch
def plan_removal(
    config: Technique, technique_input: TechniqueInput, survey_result: Any = None
) -> PruningPlan | None:
    """Return what is kept of each layer, for techniques that shrink tensors; None for all others.
    ``survey_result`` is the result of ``survey``, which is called if it is None.
    """
    return None


@singledispatch
def check_recipe(config: Technique, recipe: Recipe) -> None:
    """Check a technique's options against the model and task of a recipe.

    Raises PlainError if a technique cannot run with these options, model or task. It is also called
    by the forecast.
    """


@singledispatch
def train_weights(
    config: Technique, context: RunContext, technique_input: TechniqueInput
) -> TrainedWeights | None:
    """Return the trained weights of the layers, for techniques that train; None for all others."""
    return None


@singledispatch
def train_replacement(
    config: Technique, context: RunContext, technique_input: TechniqueInput, tables: TableBuilder
) -> ReplacementModel | None:
    """Return the model that replaces the original, for techniques that train one; None for all
    others. Its curves are added to ``tables``.
    """
    return None


@singledispatch
def replacement_outline(config: Technique, technique_input: TechniqueInput) -> LoadedModel | None:
    """Return the replacement model without values, for a forecast; None if the original is not
    replaced.
    """
    return None


@singledispatch
def check_models(config: Technique, folder: ModelSource, recipe: Recipe, at_hand: bool) -> None:
    """Check the other models that the step uses against the one in ``folder``. ``at_hand``: check
    only those that need no download.

    Raises PlainError for a model that the step cannot use.
    """


@singledispatch
def nonzero_weights(config: Technique, shape: tuple[int, int]) -> int | None:
    """Number of weights that are not set to zero in a layer of this shape; None for techniques that
    set none to zero.
    """
    return None


@singledispatch
def why_unchanged(
    config: Technique, layer: Layer, stored: StoredWeight, before: torch.Tensor
) -> str:
    """Return the reason why a layer may be unchanged, as the end of a sentence; empty if the method
    should have changed it. before: (out, in_) float32
    """
    if isinstance(stored, DenseWeight):
        dtype = str(stored.weight.dtype).removeprefix("torch.")
        return f"is already stored in {dtype}" if getattr(config, "format", "") == dtype else ""
    return "is unchanged because this format represents each of its weights exactly"


@singledispatch
def search_work(config: Technique, layers: int) -> SearchWork:
    """Return the search before the settings of this many layers are known; none by default."""
    return SearchWork()


@singledispatch
def training_work(config: Technique) -> TrainingWork:
    """Return the training before layers are stored: by default of all weights in ``config.steps``
    steps of ``config.batch`` examples, if the technique trains.
    """
    if not config.trains:
        return TrainingWork()
    steps, batch = getattr(config, "steps", 0), getattr(config, "batch", 0)
    return TrainingWork(steps, batch, evaluations=EVALUATIONS + 1, copies=5.0)


@singledispatch
def layer_operations(config: Technique, shape: tuple[int, int]) -> float:
    """Return the operations for a layer of this shape besides those proportional to its rows, which
    are measured.
    """
    return 0.0


@singledispatch
def forecast_notes(config: Technique, technique_input: TechniqueInput) -> tuple[str, ...]:
    """Return notes for the forecast of a step, such as what its size depends on."""
    return ()


@singledispatch
def explanation(config: Technique, compressed: CompressedLayer) -> Explanation | None:
    """Return a table that explains the technique on one layer, bounded for layers of any size; None
    for the default, a few weights that share a scale. Its row class is declared with
    ``@explanation_row`` in a module that does not import torch, since the page imports it, too.
    """
    return None


@singledispatch
def range_rows(config: Technique, layer: str, seen: InputStats) -> list[ObserverRow]:
    """Range of a layer's inputs by each observer, for techniques with the view ``input-ranges``."""
    return []


def meta_tensor(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Tensor without values, for storage plans."""
    return torch.empty(shape, dtype=dtype, device="meta")


def predicted_bytes(config: Technique, shape: tuple[int, int]) -> int:
    """Bytes that ``compress`` will store for a weight of this shape."""
    return storage_plan(config, shape).nbytes
