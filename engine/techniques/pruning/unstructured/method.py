"""Single weights set to zero: score, choose, store."""

import torch

from engine.calibration import Seen
from engine.calibration.gradient_stats import Slopes
from engine.errors import PlainError
from engine.models.layers import Layer
from engine.step.layer_swap import Trial
from engine.techniques.hooks import blueprint, compress, nonzero_weights, plan, why_unchanged
from engine.techniques.pruning.masks import gone, refuse_uneven, shares, stays
from engine.techniques.pruning.options import Pruning, n_of_m
from engine.techniques.pruning.unstructured.config import Random
from engine.techniques.pruning.unstructured.scores import among_layers, importance
from engine.tensors.sparse import sparse, sparse_blueprint
from engine.tensors.weights import Stored

NEXT_DRAW = 10_007  # from one layer to the next; more than there are draws to choose


@plan.register
def plan_pruning(
    how: Pruning, layers: list[Layer], trial: Trial | None = None
) -> dict[str, Pruning]:
    """Each layer's own share of a global budget; a forecast takes them to be equal."""
    if how.pattern:
        refuse_uneven_layers(layers, n_of_m(how.pattern)[1])
    placed = {layer.name: placed_in(how, number, layer) for number, layer in enumerate(layers)}
    if how.scope != "global" or how.pattern or trial is None:
        return placed
    seen = trial.knows(how.needs, list(placed))
    scored = {
        layer.name: layer.parameters
        for layer in layers
        if how.needs == "nothing" or layer.name in seen
    }

    def scores(name: str) -> torch.Tensor:
        return among_layers(
            placed[name],
            importance(placed[name], trial.weight_of(name), *([seen[name]] if seen else [])),
        )

    mine = shares(scores, scored, how.sparsity)
    for name, share in mine.items():
        if share == 1 and not trial.weight_of(name).any():
            mine[name] = 0.0  # it is all zeros already
        elif share == 1:
            raise PlainError(
                f"{name} would lose every weight when {how.sparsity:.0%} of all layers go; "
                "ask for less, or for a share of each layer."
            )
    return {
        name: each.model_copy(update={"scope": "layer", "sparsity": mine.get(name, 0.0)})
        for name, each in placed.items()
    }


def placed_in(how: Pruning, number: int, layer: Layer) -> Pruning:
    own = {"values": layer.dtype} if how.values == "model" else {}
    return how.model_copy(
        update=own | ({"draw": how.draw + NEXT_DRAW * number} if isinstance(how, Random) else {})
    )


def refuse_uneven_layers(layers: list[Layer], of: int) -> None:
    for layer in layers:
        try:
            refuse_uneven(layer.matrix_shape[1], of)
        except PlainError as error:
            raise PlainError(f"{layer.name}: {error}") from None


@compress.register
def pruned(how: Pruning, weight: torch.Tensor, seen: Seen | Slopes | None = None) -> Stored:
    """``weight``: (out, in_) float32"""
    score = importance(how, weight, *([seen] if seen else []))
    return kept(weight.masked_fill(~stays(score, how), 0), weight, how)


def kept(left: torch.Tensor, weight: torch.Tensor, how: Pruning) -> Stored:
    """Remaining weights in the requested storage. Raises PlainError if none are left, unless all
    were zero before.
    """
    if weight.any() and not left.any():
        raise PlainError(
            "No weight would be left; remove a smaller share, or name the layer under Layers "
            "to skip (layers.skip)."
        )
    return sparse(left.to(dtype_of(how)), how.storage, n_of_m(how.pattern) if how.pattern else None)


def dtype_of(how: Pruning) -> torch.dtype:
    return getattr(torch, how.values) if how.values != "model" else torch.float32


@blueprint.register
def blueprint_pruning(how: Pruning, shape: tuple[int, int]) -> Stored:
    """Exact where no weight left is zero already."""
    return sparse_blueprint(
        shape,
        left_of(how, shape),
        dtype_of(how),
        how.storage,
        n_of_m(how.pattern) if how.pattern else None,
    )


@nonzero_weights.register
def nonzero_weights_pruning(how: Pruning, shape: tuple[int, int]) -> int | None:
    return left_of(how, shape) if how.removed else None


@why_unchanged.register
def why_unchanged_pruning(how: Pruning, layer: Layer, stored: Stored, before: torch.Tensor) -> str:
    nonzero = before.count_nonzero().item()
    zeros = 1 - nonzero / layer.parameters
    return (
        (f"is unchanged because {zeros:.1%} of its weights were already zero, as many as requested")
        if nonzero <= left_of(how, layer.matrix_shape)
        else ""
    )


def left_of(how: Pruning, shape: tuple[int, int]) -> int:
    out, in_ = shape
    if how.pattern:
        kept_, of = n_of_m(how.pattern)
        return out * in_ // of * kept_
    return (
        out * (in_ - gone(how.sparsity, in_))
        if how.scope == "row"
        else out * in_ - gone(how.sparsity, out * in_)
    )
