"""Pruning of single weights: compute scores, choose, store."""

import torch

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.errors import PlainError, option_name
from engine.models.layers import SKIP, Layer
from engine.step.layer_swap import LayerSwap
from engine.techniques.hooks import compress, nonzero_weights, plan, storage_plan, why_unchanged
from engine.techniques.pruning.masks import check_divisible, keep_mask, layer_shares, removed_count
from engine.techniques.pruning.options import Pruning, parse_pattern
from engine.techniques.pruning.unstructured.config import Random
from engine.techniques.pruning.unstructured.scores import comparable_between_layers, importance
from engine.tensors.sparse import sparse_storage_plan, sparse_weight
from engine.tensors.weights import StoredWeight

SEED_STRIDE = (
    10_007  # seed offset from one layer to the next; larger than the number of possible seeds
)


@plan.register
def plan_pruning(
    config: Pruning, layers: list[Layer], layer_swap: LayerSwap | None = None
) -> dict[str, Pruning]:
    """Setting of each layer, with its own share of a global budget; a forecast assumes equal
    shares.
    """
    if config.pattern:
        check_divisible_layers(layers, parse_pattern(config.pattern)[1])
    placed = {
        layer.name: layer_config(config, number, layer) for number, layer in enumerate(layers)
    }
    if config.scope != "global" or config.pattern or layer_swap is None:
        return placed
    stats = layer_swap.layer_stats(config.needs, list(placed))
    scored = {
        layer.name: layer.parameters
        for layer in layers
        if config.needs == "nothing" or layer.name in stats
    }

    def scores(name: str) -> torch.Tensor:
        return comparable_between_layers(
            placed[name],
            importance(placed[name], layer_swap.weight_of(name), *([stats[name]] if stats else [])),
        )

    shares = layer_shares(scores, scored, config.sparsity)
    for name, share in shares.items():
        if share == 1 and not layer_swap.weight_of(name).any():
            shares[name] = 0.0  # all its weights are zero already
        elif share == 1:
            raise PlainError(
                f"{name} would lose every weight at {config.sparsity:.0%} of all layers; lower "
                f"{option_name(config, 'sparsity')}, or set {option_name(config, 'scope')} to "
                "layer."
            )
    return {
        name: setting.model_copy(update={"scope": "layer", "sparsity": shares.get(name, 0.0)})
        for name, setting in placed.items()
    }


def layer_config(config: Pruning, number: int, layer: Layer) -> Pruning:
    own = {"values": layer.dtype} if config.values == "model" else {}
    return config.model_copy(
        update=own
        | ({"draw": config.draw + SEED_STRIDE * number} if isinstance(config, Random) else {})
    )


def check_divisible_layers(layers: list[Layer], m: int) -> None:
    for layer in layers:
        try:
            check_divisible(layer.matrix_shape[1], m)
        except PlainError as error:
            raise PlainError(f"{layer.name}: {error}") from None


@compress.register
def compress_pruning(
    config: Pruning, weight: torch.Tensor, stats: InputStats | GradientStats | None = None
) -> StoredWeight:
    """``weight``: (out, in_) float32"""
    score = importance(config, weight, *([stats] if stats else []))
    return stored_remaining(weight.masked_fill(~keep_mask(score, config), 0), weight, config)


def stored_remaining(left: torch.Tensor, weight: torch.Tensor, config: Pruning) -> StoredWeight:
    """Remaining weights in the requested storage format. Raises PlainError if none are left, unless
    all were zero before.
    """
    if weight.any() and not left.any():
        raise PlainError(
            f"No weight would be left; remove a smaller share, or name the layer under {SKIP}."
        )
    return sparse_weight(
        left.to(values_dtype(config)),
        config.storage,
        parse_pattern(config.pattern) if config.pattern else None,
    )


def values_dtype(config: Pruning) -> torch.dtype:
    return getattr(torch, config.values) if config.values != "model" else torch.float32


@storage_plan.register
def storage_plan_pruning(config: Pruning, shape: tuple[int, int]) -> StoredWeight:
    """Storage plan; exact if no remaining weight is zero."""
    return sparse_storage_plan(
        shape,
        remaining_count(config, shape),
        values_dtype(config),
        config.storage,
        parse_pattern(config.pattern) if config.pattern else None,
    )


@nonzero_weights.register
def nonzero_weights_pruning(config: Pruning, shape: tuple[int, int]) -> int | None:
    return remaining_count(config, shape) if config.removed_share else None


@why_unchanged.register
def why_unchanged_pruning(
    config: Pruning, layer: Layer, stored: StoredWeight, before: torch.Tensor
) -> str:
    nonzero = before.count_nonzero().item()
    zeros = 1 - nonzero / layer.parameters
    return (
        (f"is unchanged because {zeros:.1%} of its weights were already zero, as many as requested")
        if nonzero <= remaining_count(config, layer.matrix_shape)
        else ""
    )


def remaining_count(config: Pruning, shape: tuple[int, int]) -> int:
    out, in_ = shape
    if config.pattern:
        kept_, of = parse_pattern(config.pattern)
        return out * in_ // of * kept_
    return (
        out * (in_ - removed_count(config.sparsity, in_))
        if config.scope == "row"
        else out * in_ - removed_count(config.sparsity, out * in_)
    )
