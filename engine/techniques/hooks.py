"""The stages of a run that a method may implement, each pure in what it is given; chosen by the
technique's type.

survey    what the method wants to know from data
plan      one frozen setting for each layer: where global budgets are solved
scales    what layers are multiplied by before that, so that it can be taken out of the module
          before them
compress  one layer: what would be stored for it
blueprint what that will be, before it is done: tensors of the right shapes without values
beside    the same for what leaves a layer stored as it is and only adds to it
portrait  what there is to see of a layer that is done

Methods that train do so before the walk, which then stores what they left (``retrained``). Those
that train a model as a whole put another in its place (``taught``), whose shapes are known before
(``outlined``). Methods that change the model's shape walk through no layers. They say what stays of
each (``rebuild``), by what ``survey`` has found.
"""

from functools import singledispatch
from typing import Any

import torch

from engine.calibration import Fold, Seen
from engine.calibration.gradient_stats import Slopes
from engine.config.technique import Technique
from engine.models.layers import Layer
from engine.models.loaded_model import Opened
from engine.recipe import Recipe
from engine.step.layer_swap import Trial
from engine.step.pruning_plan import Rebuilt, Subject
from engine.step.replacement_model import Successor
from engine.step.run_context import Bench
from engine.step.table_builder import TableBuilder
from engine.step.trained_weights import Trained
from engine.tensors.weights import Stored


@singledispatch
def plan(how: Technique, layers: list[Layer], trial: Trial | None = None) -> dict[str, Technique]:
    """The setting of each layer by name; by default all are treated alike. ``trial`` lets a
    technique see what changed layers do to the
    model's answers; a forecast goes without.
    """
    return {layer.name: how for layer in layers}


@singledispatch
def compress(how: Technique, weight: torch.Tensor, seen: Seen | None = None) -> Stored:
    """Return one layer's weight, (out, in_) float32, as it would be stored. ``seen`` are the
    statistics of its inputs that the technique needs.
    """
    raise TypeError(f"no method implements {type(how).__name__}")


@singledispatch
def scales_for(
    how: Technique, fold: Fold, weights: list[torch.Tensor], seen: Seen
) -> tuple[torch.Tensor, list[tuple[float, float]]] | None:
    """Scales for the inputs of layers that share one, (in_,), with the (alpha, error) that were
    tried; None to leave them.
    """
    return None


@singledispatch
def blueprint(how: Technique, shape: tuple[int, int]) -> Stored:
    """Return the result of ``compress`` for a weight of this shape with tensors without values
    (device meta).
    """
    raise TypeError(f"no method forecasts {type(how).__name__}")


@singledispatch
def beside(how: Technique, held: Stored) -> Stored | None:
    """A layer stored as ``held``, which may be a blueprint, with what the technique adds to it;
    None if it is stored again.
    """
    return None


@singledispatch
def portrait(
    how: Technique, layer: str, weight: torch.Tensor, stored: Stored, seen: Seen | Slopes | None
) -> TableBuilder:
    """Return the table rows about one layer that only this technique has."""
    return TableBuilder()


@singledispatch
def survey(how: Technique, subject: Subject) -> Any:
    """Collect the statistics for ``rebuild``, which do not depend on how much is removed."""
    return None


@singledispatch
def rebuild(how: Technique, subject: Subject, known: Any = None) -> Rebuilt | None:
    """Return what is kept of each layer, for techniques that shrink tensors; None for all others.
    ``known`` is the result of ``survey``, which is called if it is None.
    """
    return None


@singledispatch
def refuse_unfit(how: Technique, recipe: Recipe) -> None:
    """Raises PlainError where a technique has no meaning for what a recipe asks; said in the
    forecast already.
    """


@singledispatch
def retrained(how: Technique, bench: Bench, subject: Subject) -> Trained | None:
    """Return the trained weights of the layers, for techniques that train; None for all others."""
    return None


@singledispatch
def taught(how: Technique, bench: Bench, subject: Subject, rows: TableBuilder) -> Successor | None:
    """The model that takes the place of the subject, for techniques that train one; None for all
    others. Its curves go to ``rows``.
    """
    return None


@singledispatch
def outlined(how: Technique, subject: Subject) -> Opened | None:
    """Return the model that replaces the subject, without values, for a forecast; None if the
    subject is not replaced.
    """
    return None


def sketch(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor without values, for blueprints."""
    return torch.empty(shape, dtype=dtype, device="meta")


def predicted_bytes(how: Technique, shape: tuple[int, int]) -> int:
    """Bytes that ``compress`` will store for a weight of this shape."""
    return blueprint(how, shape).nbytes
