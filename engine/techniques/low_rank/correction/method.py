"""A rounded weight with a low-rank correction of the rounding error: EoRA (arXiv:2410.21271) and
LoftQ's alternation (arXiv:2310.08659).
"""

import torch

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.errors import PlainError
from engine.models.layers import Layer
from engine.step.layer_swap import LayerSwap
from engine.techniques.hooks import compress, plan, storage_plan
from engine.techniques.low_rank.correction.config import LowRankCorrection
from engine.techniques.low_rank.svd.method import (
    exact_svd,
    low_rank_plan,
    low_rank_weight,
    rank_too_large_message,
)
from engine.techniques.low_rank.whitening import Whitening, whitening
from engine.tensors.low_rank import CorrectedWeight, LowRankWeight
from engine.tensors.weights import StoredWeight


class LayerCorrection(LowRankCorrection):
    """Setting of one layer."""

    own: str = "float32"  # dtype of its weights in the file


@plan.register
def plan_low_rank_correction(
    config: LowRankCorrection, layers: list[Layer], layer_swap: LayerSwap | None = None
) -> dict[str, LayerCorrection]:
    largest = max(layers, key=lambda layer: min(layer.matrix_shape))
    if config.rank > (full := min(largest.matrix_shape)):
        raise PlainError(rank_too_large_message(config.rank, full, largest.name))
    return {layer.name: LayerCorrection(**config.model_dump(), own=layer.dtype) for layer in layers}


@compress.register
def compress_low_rank_correction(
    config: LowRankCorrection, weight: torch.Tensor, stats: InputStats | GradientStats | None = None
) -> StoredWeight:
    """``weight``: (out, in_) float32"""
    white, rank = whitening(config, stats), min(config.rank, *weight.shape)
    correction = (
        None
        if config.order == "quantize-first"
        else nearest_low_rank(weight, white, rank, factor_dtype(config))
    )
    for _ in range(config.rounds):
        base = compress(
            config.rounding(), weight if correction is None else weight - correction.to_dense()
        )
        correction = nearest_low_rank(weight - base.to_dense(), white, rank, factor_dtype(config))
    return CorrectedWeight(tuple(weight.shape), base, correction)


def nearest_low_rank(
    matrix: torch.Tensor, white: Whitening, rank: int, dtype: torch.dtype
) -> LowRankWeight:
    """Matrix of this rank with the smallest whitened difference."""
    return low_rank_weight(
        *white.unwhiten_factors(*exact_svd(white.whiten(matrix)).factors(rank)), dtype
    )


def factor_dtype(config: LowRankCorrection) -> torch.dtype:
    own = config.own if isinstance(config, LayerCorrection) else "float32"
    return getattr(torch, own if config.factors == "model" else config.factors)


@storage_plan.register
def storage_plan_low_rank_correction(
    config: LowRankCorrection, shape: tuple[int, int]
) -> CorrectedWeight:
    return CorrectedWeight(
        shape,
        storage_plan(config.rounding(), shape),
        low_rank_plan(shape, min(config.rank, *shape), factor_dtype(config)),
    )
