"""Magnitude pruning during training: pruned weights stay zero, or compete again with ``regrow``."""

import torch

from engine.errors import PlainError
from engine.measurement.size import written_bytes
from engine.models.layers import SKIP
from engine.techniques.pruning.masks import keep_mask, layer_shares
from engine.techniques.pruning.options import Pruning, parse_pattern
from engine.techniques.pruning.unstructured.config import Magnitude
from engine.techniques.pruning.unstructured.method import stored_remaining, values_dtype
from engine.tensors.sparse import sparse_storage_plan
from engine.tensors.weights import StoredWeight
from engine.training import TrainableModel


def update_masks(trainable: TrainableModel, config: Pruning, share: float) -> None:
    """Update the masks so that a share of the weights is zero. Raises PlainError if a layer would
    have no weights left.
    """
    settings = {layer.name: at_share(config, share) for layer in trainable.layers}
    if config.scope == "global" and not config.pattern:
        shares = layer_shares(
            lambda name: magnitude_scores(trainable, name),
            {layer.name: layer.parameters for layer in trainable.layers},
            share,
        )
        settings = {
            name: Magnitude(scope="layer").model_copy(update={"sparsity": magnitudes})
            for name, magnitudes in shares.items()
        }
    for name, threshold in settings.items():
        mask = (
            keep_mask(magnitude_scores(trainable, name), threshold)
            if threshold
            else torch.ones_like(trainable.mask(name))
        )
        if not trainable.masks[name].regrow:
            # a weight that was trained to zero is no smaller than a pruned one
            mask = mask & trainable.mask(name)
        check_not_emptied(name, mask, share)
        trainable.set_mask(name, mask)


def at_share(config: Pruning, share: float) -> Pruning | None:
    """Config for an intermediate pruning step that removes only ``share``; None if that removes
    nothing. An N:M pattern removes whole weights of every M neighbors.
    """
    if not config.pattern:
        return config.model_copy(
            update={
                "sparsity": share,
                "scope": "layer" if config.scope == "global" else config.scope,
            }
        )
    of = parse_pattern(config.pattern)[1]
    kept = of - round(share * of)
    return config.model_copy(update={"pattern": f"{kept}:{of}"}) if kept < of else None


def magnitude_scores(trainable: TrainableModel, name: str) -> torch.Tensor:
    """Magnitudes of the weights, zero for pruned ones unless they are trained. (out, in_)"""
    magnitudes = trainable.unmasked_weight(name).abs()
    return magnitudes if trainable.masks[name].regrow else magnitudes * trainable.mask(name)


def check_not_emptied(name: str, mask: torch.Tensor, share: float) -> None:
    if not mask.any():
        raise PlainError(
            f"{name} would lose every weight at {share:.0%}; remove a smaller share, or name "
            f"the layer under {SKIP}."
        )


def nonzero_counts(trainable: TrainableModel) -> dict[str, int]:
    """Numbers of nonzero weights by layer."""
    return {
        layer.name: int(trainable.weight(layer.name).count_nonzero()) for layer in trainable.layers
    }


def stored_layers(
    trainable: TrainableModel, settings: dict[str, Pruning]
) -> dict[str, StoredWeight]:
    """Stored weight of every layer."""
    before = {
        layer.name: trainable.original.model.get_submodule(layer.name)
        .stored.to_dense(torch.float32)
        .cpu()
        for layer in trainable.layers
    }
    return {
        name: stored_remaining(
            left := trainable.weight(name).cpu(), stored, config_for_remaining(settings[name], left)
        )
        for name, stored in before.items()
    }


def config_for_remaining(config: Pruning, left: torch.Tensor) -> Pruning:
    """Return the config with room for all remaining weights: in a model whose schedule did not end,
    more than N of M neighbors remain.
    """
    if not config.pattern:
        return config
    minimum, group_size = parse_pattern(config.pattern)
    maximum = int(left.unflatten(1, (-1, group_size)).count_nonzero(-1).max())
    return config.model_copy(
        update={"pattern": f"{max(maximum, minimum)}:{group_size}"}
        if maximum < group_size
        else {"pattern": "", "storage": "dense"}
    )


def written_size_bytes(
    trainable: TrainableModel, settings: dict[str, Pruning], left: dict[str, int]
) -> int:
    """Bytes of the model's files in its current state."""
    pattern = {
        name: parse_pattern(config.pattern) if config.pattern else None
        for name, config in settings.items()
    }
    plans = {
        layer.name: sparse_storage_plan(
            layer.matrix_shape,
            left[layer.name],
            values_dtype(config),
            config.storage,
            pattern[layer.name],
        )
        for layer in trainable.layers
        if (config := settings[layer.name])
    }
    return written_bytes(trainable.original, plans)
