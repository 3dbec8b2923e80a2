"""SVD of a weight, plain or whitened by calibration data: the nearest matrix of a rank, as two
factors.
"""

from dataclasses import dataclass

import torch

from engine.calibration import CalibrationStream, InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.errors import PlainError, option_name
from engine.events import ProgressEvent
from engine.models.layers import Layer, blocks_of
from engine.runtime.threads import threads_for
from engine.step.layer_swap import LayerSwap
from engine.techniques.hooks import compress, meta_tensor, plan, storage_plan
from engine.techniques.low_rank.options import WhitenedLowRank
from engine.techniques.low_rank.ranks import (
    LayerEnergy,
    allocated_ranks,
    allocated_ranks_by_energy,
    rank_of_energy,
    rank_of_share,
)
from engine.techniques.low_rank.svd.config import SVD
from engine.techniques.low_rank.whitening import Whitening, whitening
from engine.tensors.low_rank import (
    LowRankWeight,
    UnfactoredWeight,
    break_even_rank,
    saves_parameters,
)
from engine.tensors.weights import DenseWeight, StoredWeight

OVERSAMPLING = 8  # oversampling of the randomized solver


class LayerSVD(SVD):
    """Setting of one layer."""

    own: str = "float32"  # dtype of its weights in the file
    settled: int | None = None  # its rank, if it was chosen by a budget for all layers


# --- each layer's rank ----------------------------------------------------------------------------


@plan.register
def plan_svd(
    config: SVD, layers: list[Layer], layer_swap: LayerSwap | None = None
) -> dict[str, LayerSVD]:
    check_rank(config, layers)
    placed = {layer.name: LayerSVD(**config.model_dump(), own=layer.dtype) for layer in layers}
    if config.by == "rank" or config.scope == "layer" or layer_swap is None:
        return placed
    ranks = budget_ranks(config, layer_energies(config, layers, layer_swap))
    return {
        name: setting.model_copy(update={"settled": ranks.get(name)})
        for name, setting in placed.items()
    }


def budget_ranks(config: SVD, layers: dict[str, LayerEnergy]) -> dict[str, int]:
    """Ranks of all layers for one budget."""
    return (
        allocated_ranks(layers, config.kept)
        if config.by == "kept"
        else allocated_ranks_by_energy(layers, config.energy)
    )


def check_rank(config: SVD, layers: list[Layer]) -> None:
    largest = max(layers, key=lambda layer: min(layer.matrix_shape))
    full = min(largest.matrix_shape)
    if config.by == "rank" and config.rank > full:
        raise PlainError(rank_too_large_message(config.rank, full, largest.name))


def rank_too_large_message(rank: int, full: int, layer: str) -> str:
    return (
        f"Rank {rank:,} is above the full rank of every layer, {full:,} at most ({layer}), so "
        f"nothing would change; give a smaller {option_name(SVD, 'rank')}."
    )


def layer_energies(
    config: WhitenedLowRank, layers: list[Layer], layer_swap: LayerSwap
) -> dict[str, LayerEnergy]:
    """Gain of each layer by rank; layers whose inputs cannot be observed are left out."""
    spectra = spectra_of(config, layers, layer_swap)
    return {
        layer.name: LayerEnergy.of(layer.matrix_shape, spectra[layer.name])
        for layer in layers
        if layer.name in spectra
    }


def spectra_of(
    config: WhitenedLowRank, layers: list[Layer], layer_swap: LayerSwap
) -> dict[str, torch.Tensor]:
    """Singular values of every layer's whitened weight. Gram matrices are kept for one block at a
    time.
    """
    if config.needs == "gram":
        return streamed_spectra(config, layers, layer_swap)
    names = [layer.name for layer in layers]
    stats = layer_swap.layer_stats(config.needs, names)
    found = {}
    for done, name in enumerate(names):
        layer_swap.context.progress(ProgressEvent("finding-ranks", done, len(names)))
        if config.needs == "nothing" or name in stats:
            found[name] = singular_values(
                whitening(config, stats.get(name)), layer_swap.weight_of(name)
            )
    return found


def streamed_spectra(
    config: WhitenedLowRank, layers: list[Layer], layer_swap: LayerSwap
) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    stream = CalibrationStream(
        layer_swap.original.model,
        layer_swap.batches,
        layer_swap.original.device,
        lambda: layer_swap.context.progress(
            ProgressEvent("finding-ranks", len(found), len(layers))
        ),
    )
    for block in blocks_of(layers):
        for name, layer_stats in stream.collect_stats(
            block[0].block, [layer.name for layer in block], True
        ).items():
            found[name] = singular_values(
                whitening(config, layer_stats), layer_swap.weight_of(name)
            )
        stream.advance(block[0].block)
    return found


def singular_values(white: Whitening, weight: torch.Tensor) -> torch.Tensor:
    matrix = white.whiten(weight)
    with threads_for(matrix.shape):
        return torch.linalg.svdvals(matrix)


# --- one layer ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SVDResult:
    """Singular vectors and values, largest first: all of them, or the requested number."""

    left: torch.Tensor  # (out, found)
    values: torch.Tensor  # (found,)
    right: torch.Tensor  # (found, in_)

    def factors(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Factors scaled by the roots of the singular values, so that both have equal size. (out,
        rank), (rank, in_)
        """
        roots = self.values[:rank].sqrt()
        return self.left[:, :rank] * roots, self.right[:rank] * roots[:, None]


@compress.register
def compress_svd(
    config: SVD, weight: torch.Tensor, stats: InputStats | GradientStats | None = None
) -> StoredWeight:
    """``weight``: (out, in_) float32"""
    white = whitening(config, stats)
    rank, found = rank_and_svd(config, white.whiten(weight))
    if reason := why_unfactored(config, weight.shape, rank):
        return UnfactoredWeight(
            tuple(weight.shape), weight.to(getattr(torch, own_dtype(config))), reason
        )
    return low_rank_weight(*white.unwhiten_factors(*found.factors(rank)), factor_dtype(config))


def rank_and_svd(config: SVD, matrix: torch.Tensor) -> tuple[int, SVDResult]:
    """Return the rank to keep and the singular vectors found."""
    if config.by == "energy" and allocated_rank(config) is None:
        found = exact_svd(matrix)
        return rank_of_energy(found.values, config.energy), found
    rank = fixed_rank(config, tuple(matrix.shape))
    return rank, truncated_svd(matrix, rank, config)


def allocated_rank(config: SVD) -> int | None:
    return config.settled if isinstance(config, LayerSVD) else None


def own_dtype(config: SVD) -> str:
    return config.own if isinstance(config, LayerSVD) else "float32"


def factor_dtype(config: SVD) -> torch.dtype:
    return getattr(torch, own_dtype(config) if config.factors == "model" else config.factors)


def fixed_rank(config: SVD, shape: tuple[int, int]) -> int:
    """The rank if it does not depend on the singular values."""
    if (settled := allocated_rank(config)) is not None:
        return settled
    return (
        min(config.rank, min(shape)) if config.by == "rank" else rank_of_share(shape, config.kept)
    )


def why_unfactored(config: SVD, shape: tuple[int, int], rank: int) -> str:
    """Reason why a layer is not factorized; empty if it is."""
    if rank >= min(shape):
        return f"rank {min(shape)} is its full rank, so it is unchanged"
    if config.by != "rank" and not saves_parameters(shape, rank):
        return (
            f"rank {rank} is not below its break-even rank {break_even_rank(shape):.1f}, so it is "
            "unchanged"
        )
    return ""


def truncated_svd(matrix: torch.Tensor, rank: int, config: SVD) -> SVDResult:
    """At least ``rank`` singular vectors and values."""
    return (
        randomized_svd(matrix, rank, config.iterations)
        if config.solver == "randomized"
        else exact_svd(matrix)
    )


def exact_svd(matrix: torch.Tensor) -> SVDResult:
    with threads_for(matrix.shape):
        return SVDResult(*torch.linalg.svd(matrix, full_matrices=False))


def randomized_svd(matrix: torch.Tensor, rank: int, iterations: int) -> SVDResult:
    """Randomized SVD; the random vectors are the same each time."""
    with (
        threads_for(matrix.shape),
        torch.random.fork_rng(devices=[matrix.device] if matrix.is_cuda else []),
    ):
        torch.manual_seed(0)
        left, values, right = torch.svd_lowrank(
            matrix, min(rank + OVERSAMPLING, min(matrix.shape)), iterations
        )
    return SVDResult(left, values, right.T)


def low_rank_weight(left: torch.Tensor, right: torch.Tensor, dtype: torch.dtype) -> LowRankWeight:
    parts = (DenseWeight(tuple(part.shape), part.to(dtype).contiguous()) for part in (left, right))
    return LowRankWeight((left.shape[0], right.shape[1]), *parts)


@storage_plan.register
def storage_plan_svd(config: SVD, shape: tuple[int, int]) -> StoredWeight:
    """Storage plan; exact if the rank follows from the shape, otherwise an upper bound."""
    rank = min(shape) if config.by == "energy" else fixed_rank(config, shape)
    if config.by == "kept" and config.scope == "global" and allocated_rank(config) is None:
        rank += 1  # shares of all layers together are not rounded down per layer
    if reason := why_unfactored(config, shape, rank):
        return UnfactoredWeight(
            shape, meta_tensor(*shape, dtype=getattr(torch, own_dtype(config))), reason
        )
    return low_rank_plan(shape, rank, factor_dtype(config))


def low_rank_plan(shape: tuple[int, int], rank: int, dtype: torch.dtype) -> LowRankWeight:
    sizes = (shape[0], rank), (rank, shape[1])
    return LowRankWeight(
        shape, *(DenseWeight(size, meta_tensor(*size, dtype=dtype)) for size in sizes)
    )
