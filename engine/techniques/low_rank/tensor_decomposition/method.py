"""Tucker-2 and CP decomposition of convolutions with tensorly: a kernel becomes a chain of smaller
ones.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from engine.errors import PlainError, option_name
from engine.models.layers import Layer
from engine.step.layer_swap import LayerSwap
from engine.techniques.hooks import compress, meta_tensor, plan, storage_plan
from engine.techniques.low_rank.ranks import rank_of_energy
from engine.techniques.low_rank.tensor_decomposition.config import CP, KernelDecomposition, Tucker
from engine.tensors.low_rank import CPKernel, TuckerKernel, UnfactoredWeight
from engine.tensors.weights import DenseWeight, StoredWeight

Kernel = tuple[int, int, int]  # in_, height, width
ERROR_TOLERANCE = 1e-7  # change of the error at which iterations end


class LayerTucker(Tucker):
    """Setting of one layer."""

    own: str = "float32"  # dtype of its weights in the file
    kernel: Kernel | None = None
    kept_because: str = ""  # why it is not factorized; empty if it is


class LayerCP(CP):
    """Setting of one layer."""

    own: str = "float32"
    kernel: Kernel | None = None
    kept_because: str = ""


LayerConfig = LayerTucker | LayerCP


# --- which layers, and how far --------------------------------------------------------------------


@plan.register
def plan_kernel_decomposition(
    config: KernelDecomposition, layers: list[Layer], layer_swap: LayerSwap | None = None
) -> dict[str, LayerConfig]:
    kernels = {
        layer.name: kernel_shape(layer) for layer in layers if not why_not_decomposable(layer)
    }
    if not kernels:
        raise PlainError(
            f"{config.title} is for convolutions with kernels larger than 1 x 1, and there is "
            "none among these layers; use SVD instead."
        )
    check_ranks(config, [layer for layer in layers if layer.name in kernels])
    placed = LayerTucker if isinstance(config, Tucker) else LayerCP
    shared = config.model_dump()
    return {
        layer.name: placed(
            **shared,
            own=layer.dtype,
            kernel=kernels.get(layer.name),
            kept_because=why_not_decomposable(layer),
        )
        for layer in layers
    }


def kernel_shape(layer: Layer) -> Kernel:
    return layer.shape[1], layer.shape[2], layer.shape[3]


def why_not_decomposable(layer: Layer) -> str:
    if layer.kind != "conv2d":
        return "it is not a 2-D convolution, so it was not changed"
    if layer.groups > 1:
        return "a grouped convolution does not run as a chain, so it is unchanged"
    return (
        "a 1 x 1 kernel is a matrix already, so it is unchanged"
        if layer.shape[2:] == (1, 1)
        else ""
    )


def check_ranks(config: KernelDecomposition, layers: list[Layer]) -> None:
    if config.by != "rank":
        return
    if isinstance(config, CP):
        return check_cp_rank(
            config, max(full_cp_rank(layer.shape[0], kernel_shape(layer)) for layer in layers)
        )
    out, in_ = (max(layer.shape[axis] for layer in layers) for axis in (0, 1))
    if config.rank_out > out or config.rank_in > in_:
        raise PlainError(
            f"The widest convolution has {out:,} outputs and {in_:,} inputs, so ranks "
            f"{config.rank_out:,} and {config.rank_in:,} are too large; lower "
            f"{option_name(config, 'rank_out')} or {option_name(config, 'rank_in')}."
        )


def check_cp_rank(config: CP, full: int) -> None:
    if config.rank > full:
        raise PlainError(
            f"Rank {config.rank:,} is above the full rank of every convolution, {full:,} at "
            f"most, so nothing would change; lower {option_name(config, 'rank')}."
        )


def factor_dtype(config: LayerConfig) -> torch.dtype:
    return getattr(torch, config.own if config.factors == "model" else config.factors)


def unfactored_weight(config: LayerConfig, weight: torch.Tensor, reason: str) -> UnfactoredWeight:
    return UnfactoredWeight(tuple(weight.shape), weight.to(getattr(torch, config.own)), reason)


def factor_weight(matrix: torch.Tensor, config: LayerConfig) -> DenseWeight:
    return DenseWeight(tuple(matrix.shape), matrix.to(factor_dtype(config)).contiguous())


def kernel_array(weight: torch.Tensor, kernel: Kernel) -> np.ndarray:
    """(out, in_, height, width) float64, as tensorly takes it"""
    return weight.view(-1, *kernel).double().cpu().numpy()


@contextmanager
def tensorly_backend() -> Iterator[None]:
    """Make tensorly compute products of several factors in pairs; by default it first computes all
    products of rows (Khatri-Rao), 0.9 GB for 256 channels. Use one numpy thread, because thousands
    of small products are slower with more, and hide warnings that an axis is shorter than the rank.
    """
    import tensorly

    tensorly.backend.BackendManager.register_backend_method(
        "einsum", partial(np.einsum, optimize="greedy")
    )
    with tensorly.tenalg.backend_context("einsum"), warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", UserWarning)
        yield


# --- Tucker-2 -------------------------------------------------------------------------------------


@compress.register
def compress_layer_tucker(
    config: LayerTucker, weight: torch.Tensor, stats: None = None
) -> StoredWeight:
    """``weight``: (out, in_ * height * width) float32"""
    if config.kept_because:
        return unfactored_weight(config, weight, config.kept_because)
    ranks = tucker_ranks(config, len(weight), config.kernel, weight)
    if reason := why_tucker_unchanged(config, len(weight), ranks):
        return unfactored_weight(config, weight, reason)
    core, outputs, inputs = (
        torch.from_numpy(factor).float().to(weight.device)
        for factor in tucker_factors(kernel_array(weight, config.kernel), ranks, config.iterations)
    )
    return TuckerKernel(
        tuple(weight.shape),
        *config.kernel[1:],
        factor_weight(outputs, config),
        factor_weight(core.flatten(1), config),
        factor_weight(inputs.T, config),
    )


def tucker_factors(
    kernel: np.ndarray, ranks: tuple[int, int], iterations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Core (rank_out, rank_in, height, width), outputs (out, rank_out) and inputs (in_,
    rank_in).
    """
    from tensorly.decomposition import partial_tucker

    with tensorly_backend():
        (core, factors), _ = partial_tucker(
            kernel,
            rank=list(ranks),
            modes=[0, 1],
            n_iter_max=iterations,
            tol=ERROR_TOLERANCE,
            random_state=0,
        )
    return core, *factors


def tucker_parameters(out: int, kernel: Kernel, ranks: tuple[int, int]) -> int:
    in_, area = kernel[0], kernel[1] * kernel[2]
    return out * ranks[0] + ranks[0] * ranks[1] * area + ranks[1] * in_


def tucker_ranks(
    config: LayerTucker, out: int, kernel: Kernel, weight: torch.Tensor | None
) -> tuple[int, int]:
    """Ranks along outputs and inputs. By kept parameters, both are about the same share of their
    axis, and together at most the requested share.
    """
    in_, area = kernel[0], kernel[1] * kernel[2]
    if config.by == "rank":
        return min(out, config.rank_out), min(in_, config.rank_in)
    if config.by == "energy":
        return (
            energy_ranks(weight.view(-1, *kernel), config.energy)
            if weight is not None
            else (out, in_)
        )
    return share_ranks(out, in_, area, config.kept)


def share_ranks(out: int, in_: int, area: int, kept: float) -> tuple[int, int]:
    """Ranks within a budget: the input rank by its share of the axis, then the largest output rank
    that fits; if none does, a smaller input rank.
    """
    squares, all_of = out**2 + in_**2, out * in_ * area
    # of all_of a^2 + squares a = kept all_of
    share = (-squares + (squares**2 + 4 * all_of * kept * all_of) ** 0.5) / (2 * all_of)
    rank_in = max(1, min(in_, int(share * in_)))
    rank_out = int((kept * all_of - rank_in * in_) / (out + rank_in * area))
    if rank_out < 1:
        return 1, max(1, min(in_, int((kept * all_of - out) / (in_ + area))))
    return min(out, rank_out), rank_in


def energy_ranks(kernel: torch.Tensor, energy: float) -> tuple[int, int]:
    """(out, in_, height, width), unfolded along outputs and along inputs"""
    unfolded = kernel.flatten(1), kernel.transpose(0, 1).flatten(1)
    out, in_ = (rank_of_energy(torch.linalg.svdvals(unfolding), energy) for unfolding in unfolded)
    return out, in_


def why_tucker_unchanged(config: LayerTucker, out: int, ranks: tuple[int, int]) -> str:
    if ranks == (out, config.kernel[0]) or (config.by == "kept" and config.kept == 1):
        return f"ranks {out} and {config.kernel[0]} are its full ranks, so it is unchanged"
    before = out * config.kernel[0] * config.kernel[1] * config.kernel[2]
    if config.by != "rank" and tucker_parameters(out, config.kernel, ranks) >= before:
        return f"ranks {ranks[0]} and {ranks[1]} would take no fewer parameters, so it is unchanged"
    return ""


@storage_plan.register
def storage_plan_layer_tucker(config: LayerTucker, shape: tuple[int, int]) -> StoredWeight:
    """Storage plan; an upper bound if ranks are chosen by energy, which depends on the weights: at
    most the layer's current size.
    """
    dense = UnfactoredWeight(
        shape, meta_tensor(*shape, dtype=getattr(torch, config.own)), config.kept_because
    )
    if config.kept_because or config.by == "energy":
        return dense
    ranks = tucker_ranks(config, shape[0], config.kernel, None)
    if reason := why_tucker_unchanged(config, shape[0], ranks):
        return UnfactoredWeight(shape, dense.weight, reason)
    sizes = (
        (shape[0], ranks[0]),
        (ranks[0], ranks[1] * config.kernel[1] * config.kernel[2]),
        (ranks[1], config.kernel[0]),
    )
    return TuckerKernel(shape, *config.kernel[1:], *planned_factors(sizes, factor_dtype(config)))


def planned_factors(sizes: Any, dtype: torch.dtype) -> list[DenseWeight]:
    return [DenseWeight(size, meta_tensor(*size, dtype=dtype)) for size in sizes]


# --- CP -------------------------------------------------------------------------------------------


@compress.register
def compress_layer_cp(config: LayerCP, weight: torch.Tensor, stats: None = None) -> StoredWeight:
    """``weight``: (out, in_ * height * width) float32"""
    if reason := config.kept_because or why_cp_unchanged(config, len(weight)):
        return unfactored_weight(config, weight, reason)
    factors = cp_factors(
        kernel_array(weight, config.kernel), cp_rank(config, len(weight)), config.iterations
    )
    outputs, inputs, down, across = (
        torch.from_numpy(factor).float().to(weight.device) for factor in factors
    )
    return CPKernel(
        tuple(weight.shape),
        factor_weight(outputs, config),
        factor_weight(inputs.T, config),
        factor_weight(down.T, config),
        factor_weight(across.T, config),
    )


def cp_factors(kernel: np.ndarray, rank: int, iterations: int) -> list[np.ndarray]:
    """Factors with ``rank`` columns for each axis. The size of each term is divided evenly among
    them.
    """
    from tensorly.decomposition import parafac

    with tensorly_backend():
        strengths, factors = parafac(
            kernel,
            rank=rank,
            n_iter_max=iterations,
            init="svd",
            tol=ERROR_TOLERANCE,
            random_state=0,
            normalize_factors=True,
        )
    return [
        factor * np.sign(strengths) ** (axis == 0) * np.abs(strengths) ** (1 / len(factors))
        for axis, factor in enumerate(factors)
    ]


def cp_rank(config: LayerCP, out: int) -> int:
    return (
        config.rank
        if config.by == "rank"
        else max(1, int(config.kept * out * np.prod(config.kernel) / (out + sum(config.kernel))))
    )


def full_cp_rank(out: int, kernel: Kernel) -> int:
    """Number of terms that can represent every kernel of this shape exactly: the product of all
    axes but the longest.
    """
    axes = (out, *kernel)
    return int(np.prod(axes)) // max(axes)


def why_cp_unchanged(config: LayerCP, out: int) -> str:
    full = full_cp_rank(out, config.kernel)
    if cp_rank(config, out) >= full or (config.by == "kept" and config.kept == 1):
        return f"{full:,} terms can be any kernel of its shape, so it is unchanged"
    return ""


@storage_plan.register
def storage_plan_layer_cp(config: LayerCP, shape: tuple[int, int]) -> StoredWeight:
    if reason := config.kept_because or why_cp_unchanged(config, shape[0]):
        return UnfactoredWeight(
            shape, meta_tensor(*shape, dtype=getattr(torch, config.own)), reason
        )
    rank = cp_rank(config, shape[0])
    return CPKernel(
        shape,
        *planned_factors(
            [(shape[0], rank), *((rank, size) for size in config.kernel)], factor_dtype(config)
        ),
    )
