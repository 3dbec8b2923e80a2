"""The smallest weights of a model that learns are cut, and those cut before stay so or compete
again.
"""

import torch

from engine.errors import PlainError
from engine.measurement.size import written_bytes
from engine.techniques.pruning.masks import shares, stays
from engine.techniques.pruning.options import Pruning, n_of_m
from engine.techniques.pruning.unstructured.config import Magnitude
from engine.techniques.pruning.unstructured.method import dtype_of, kept
from engine.tensors.sparse import sparse_blueprint
from engine.tensors.weights import Stored
from engine.training import Pupil


def cut(pupil: Pupil, how: Pruning, share: float) -> None:
    """Update the masks so that a share of the weights is zero. Raises PlainError where a layer
    would be
    left without any.
    """
    at = {layer.name: part(how, share) for layer in pupil.layers}
    if how.scope == "global" and not how.pattern:
        mine = shares(
            lambda name: score(pupil, name),
            {layer.name: layer.parameters for layer in pupil.layers},
            share,
        )
        at = {
            name: Magnitude(scope="layer").model_copy(update={"sparsity": each})
            for name, each in mine.items()
        }
    for name, each in at.items():
        mask = stays(score(pupil, name), each) if each else torch.ones_like(pupil.mask(name))
        if not pupil.cuts[name].regrow:
            # a weight that learned to be zero is no smaller than one that was cut
            mask = mask & pupil.mask(name)
        refuse_emptied(name, mask, share)
        pupil.set_mask(name, mask)


def part(how: Pruning, share: float) -> Pruning | None:
    """The same on the way, when only such a share is to go; None where that is nothing. Of every M
    neighbors, whole ones go.
    """
    if not how.pattern:
        return how.model_copy(
            update={"sparsity": share, "scope": "layer" if how.scope == "global" else how.scope}
        )
    of = n_of_m(how.pattern)[1]
    kept = of - round(share * of)
    return how.model_copy(update={"pattern": f"{kept}:{of}"}) if kept < of else None


def score(pupil: Pupil, name: str) -> torch.Tensor:
    """Magnitudes; nothing for what was cut, unless it learns on.  (out, in_)"""
    whole = pupil.whole(name).abs()
    return whole if pupil.cuts[name].regrow else whole * pupil.mask(name)


def refuse_emptied(name: str, mask: torch.Tensor, share: float) -> None:
    if not mask.any():
        raise PlainError(
            f"{name} would lose every weight at {share:.0%}; remove a smaller share, or name "
            "the layer under Layers to skip (layers.skip)."
        )


def left_in(pupil: Pupil) -> dict[str, int]:
    """Weights that are not zero, by layer."""
    return {layer.name: int(pupil.weight(layer.name).count_nonzero()) for layer in pupil.layers}


def stored(pupil: Pupil, settings: dict[str, Pruning]) -> dict[str, Stored]:
    """Every layer as it will be in the file."""
    before = {
        layer.name: pupil.original.model.get_submodule(layer.name).stored.dense(torch.float32).cpu()
        for layer in pupil.layers
    }
    return {
        name: kept(left := pupil.weight(name).cpu(), whole, fitting(settings[name], left))
        for name, whole in before.items()
    }


def fitting(how: Pruning, left: torch.Tensor) -> Pruning:
    """Return the config with room for all remaining weights: in a model whose schedule did not end,
    more than N of M neighbors remain.
    """
    if not how.pattern:
        return how
    least, of = n_of_m(how.pattern)
    most = int(left.unflatten(1, (-1, of)).count_nonzero(-1).max())
    return how.model_copy(
        update={"pattern": f"{max(most, least)}:{of}"}
        if most < of
        else {"pattern": "", "storage": "dense"}
    )


def size_bytes(pupil: Pupil, settings: dict[str, Pruning], left: dict[str, int]) -> int:
    """Bytes of the model's files if they were written now."""
    pattern = {name: n_of_m(how.pattern) if how.pattern else None for name, how in settings.items()}
    plans = {
        layer.name: sparse_blueprint(
            layer.matrix_shape, left[layer.name], dtype_of(how), how.storage, pattern[layer.name]
        )
        for layer in pupil.layers
        if (how := settings[layer.name])
    }
    return written_bytes(pupil.original, plans)
