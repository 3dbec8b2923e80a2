"""A rounded weight and a low-rank correction of what rounding lost: EoRA (arXiv:2410.21271) and
LoftQ's turns (arXiv:2310.08659).
"""

import torch

from engine.calibration import Seen
from engine.calibration.gradient_stats import Slopes
from engine.errors import PlainError
from engine.models.layers import Layer
from engine.step.layer_swap import Trial
from engine.techniques.hooks import blueprint, compress, plan
from engine.techniques.low_rank.correction.config import LowRankCorrection
from engine.techniques.low_rank.svd.method import beyond_full, exact, low_rank, low_rank_sketch
from engine.techniques.low_rank.whitening import Whitening, whitening
from engine.tensors.low_rank import LowRank, Sum
from engine.tensors.weights import Stored


class PlacedCorrection(LowRankCorrection):
    """One layer's own setting."""

    own: str = "float32"  # number format of its weights in the file


@plan.register
def plan_low_rank_correction(
    how: LowRankCorrection, layers: list[Layer], trial: Trial | None = None
) -> dict[str, PlacedCorrection]:
    largest = max(layers, key=lambda layer: min(layer.matrix_shape))
    if how.rank > (full := min(largest.matrix_shape)):
        raise PlainError(beyond_full(how.rank, full, largest.name))
    return {layer.name: PlacedCorrection(**how.model_dump(), own=layer.dtype) for layer in layers}


@compress.register
def compress_low_rank_correction(
    how: LowRankCorrection, weight: torch.Tensor, seen: Seen | Slopes | None = None
) -> Stored:
    """``weight``: (out, in_) float32"""
    white, rank = whitening(how, seen), min(how.rank, *weight.shape)
    correction = (
        None if how.order == "quantize-first" else nearest(weight, white, rank, dtype_of(how))
    )
    for _ in range(how.rounds):
        base = compress(
            how.rounding(), weight if correction is None else weight - correction.dense()
        )
        correction = nearest(weight - base.dense(), white, rank, dtype_of(how))
    return Sum(tuple(weight.shape), base, correction)


def nearest(matrix: torch.Tensor, white: Whitening, rank: int, dtype: torch.dtype) -> LowRank:
    """Matrix of this rank with the smallest whitened difference."""
    return low_rank(*white.taken_back(*exact(white.applied(matrix)).factors(rank)), dtype)


def dtype_of(how: LowRankCorrection) -> torch.dtype:
    own = how.own if isinstance(how, PlacedCorrection) else "float32"
    return getattr(torch, own if how.factors == "model" else how.factors)


@blueprint.register
def blueprint_low_rank_correction(how: LowRankCorrection, shape: tuple[int, int]) -> Sum:
    return Sum(
        shape,
        blueprint(how.rounding(), shape),
        low_rank_sketch(shape, min(how.rank, *shape), dtype_of(how)),
    )
