"""Tucker-2 and CP of convolutions, found by tensorly: a kernel as a chain of smaller ones."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from engine.errors import PlainError
from engine.models.layers import Layer
from engine.step.layer_swap import Trial
from engine.techniques.hooks import blueprint, compress, plan, sketch
from engine.techniques.low_rank.ranks import rank_of_energy
from engine.techniques.low_rank.tensor_decomposition.config import CP, Kernels, Tucker
from engine.tensors.low_rank import CPKernel, TuckerKernel, Whole
from engine.tensors.weights import Dense, Stored

Kernel = tuple[int, int, int]  # in_, height, width
SAME = 1e-7  # change of the error at which rounds end


class PlacedTucker(Tucker):
    """One layer's own setting."""

    own: str = "float32"  # number format of its weights in the file
    kernel: Kernel | None = None
    kept_because: str = ""  # why it stays as it was; empty where it is factorized


class PlacedCP(CP):
    """One layer's own setting."""

    own: str = "float32"
    kernel: Kernel | None = None
    kept_because: str = ""


Placed = PlacedTucker | PlacedCP


# --- which layers, and how far --------------------------------------------------------------------


@plan.register
def plan_kernels(
    how: Kernels, layers: list[Layer], trial: Trial | None = None
) -> dict[str, Placed]:
    kernels = {layer.name: kernel_of(layer) for layer in layers if not why_kept(layer)}
    if not kernels:
        raise PlainError(
            f"{how.title} is for convolutions with kernels larger than 1 x 1, and there is "
            "none among these layers; use SVD instead."
        )
    refuse_beyond_full(how, [layer for layer in layers if layer.name in kernels])
    placed = PlacedTucker if isinstance(how, Tucker) else PlacedCP
    shared = how.model_dump()
    return {
        layer.name: placed(
            **shared, own=layer.dtype, kernel=kernels.get(layer.name), kept_because=why_kept(layer)
        )
        for layer in layers
    }


def kernel_of(layer: Layer) -> Kernel:
    return layer.shape[1], layer.shape[2], layer.shape[3]


def why_kept(layer: Layer) -> str:
    if layer.kind != "conv2d":
        return "it is not a 2-D convolution, so it was not changed"
    if layer.groups > 1:
        return "a grouped convolution does not run as a chain, so it was kept as it was"
    return (
        "a 1 x 1 kernel is a matrix already, so it was kept as it was"
        if layer.shape[2:] == (1, 1)
        else ""
    )


def refuse_beyond_full(how: Kernels, layers: list[Layer]) -> None:
    if how.by != "rank":
        return
    if isinstance(how, CP):
        return refuse_too_many_terms(
            how, max(full_cp_rank(layer.shape[0], kernel_of(layer)) for layer in layers)
        )
    out, in_ = (max(layer.shape[axis] for layer in layers) for axis in (0, 1))
    if how.rank_out > out or how.rank_in > in_:
        given = f"ranks {how.rank_out:,} and {how.rank_in:,}"
        raise PlainError(
            f"The widest convolution has {out:,} outputs and {in_:,} inputs, so {given} are "
            "too large; give at most as many."
        )


def refuse_too_many_terms(how: CP, full: int) -> None:
    if how.rank > full:
        raise PlainError(
            f"Rank {how.rank:,} is above the full rank of every convolution, {full:,} at "
            "most, so nothing would change; give less."
        )


def dtype_of(how: Placed) -> torch.dtype:
    return getattr(torch, how.own if how.factors == "model" else how.factors)


def whole(how: Placed, weight: torch.Tensor, reason: str) -> Whole:
    return Whole(tuple(weight.shape), weight.to(getattr(torch, how.own)), reason)


def part(matrix: torch.Tensor, how: Placed) -> Dense:
    return Dense(tuple(matrix.shape), matrix.to(dtype_of(how)).contiguous())


def array(weight: torch.Tensor, kernel: Kernel) -> np.ndarray:
    """(out, in_, height, width) float64, as tensorly takes it"""
    return weight.view(-1, *kernel).double().cpu().numpy()


@contextmanager
def tensorly_ready() -> Iterator[None]:
    """Its products of many factors made pair by pair: by itself it writes out all products of rows
    first (Khatri-Rao), 0.9 GB for 256 channels.

    With one of numpy's threads, since thousands of small products are slower with more; and without
    warnings that an axis is shorter than
    there are terms, which is as it should be.
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
def compress_placed_tucker(how: PlacedTucker, weight: torch.Tensor, seen: None = None) -> Stored:
    """``weight``: (out, in_ * height * width) float32"""
    if how.kept_because:
        return whole(how, weight, how.kept_because)
    ranks = tucker_ranks(how, len(weight), how.kernel, weight)
    if reason := why_tucker_stays(how, len(weight), ranks):
        return whole(how, weight, reason)
    core, outputs, inputs = (
        torch.from_numpy(each).float().to(weight.device)
        for each in tucker(array(weight, how.kernel), ranks, how.iterations)
    )
    return TuckerKernel(
        tuple(weight.shape),
        *how.kernel[1:],
        part(outputs, how),
        part(core.flatten(1), how),
        part(inputs.T, how),
    )


def tucker(
    kernel: np.ndarray, ranks: tuple[int, int], iterations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Core (rank_out, rank_in, height, width), outputs (out, rank_out) and inputs (in_,
    rank_in).
    """
    from tensorly.decomposition import partial_tucker

    with tensorly_ready():
        (core, factors), _ = partial_tucker(
            kernel, rank=list(ranks), modes=[0, 1], n_iter_max=iterations, tol=SAME, random_state=0
        )
    return core, *factors


def tucker_parameters(out: int, kernel: Kernel, ranks: tuple[int, int]) -> int:
    in_, area = kernel[0], kernel[1] * kernel[2]
    return out * ranks[0] + ranks[0] * ranks[1] * area + ranks[1] * in_


def tucker_ranks(
    how: PlacedTucker, out: int, kernel: Kernel, weight: torch.Tensor | None
) -> tuple[int, int]:
    """Along outputs and inputs. By kept parameters both are about the same share of their axis, and
    together no more than was asked for.
    """
    in_, area = kernel[0], kernel[1] * kernel[2]
    if how.by == "rank":
        return min(out, how.rank_out), min(in_, how.rank_in)
    if how.by == "energy":
        return (
            energy_ranks(weight.view(-1, *kernel), how.energy) if weight is not None else (out, in_)
        )
    return share_ranks(out, in_, area, how.kept)


def share_ranks(out: int, in_: int, area: int, kept: float) -> tuple[int, int]:
    """Ranks within a budget: inputs by their share of the axis, then as many outputs as fit; if
    none does, fewer inputs.
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
    out, in_ = (rank_of_energy(torch.linalg.svdvals(each), energy) for each in unfolded)
    return out, in_


def why_tucker_stays(how: PlacedTucker, out: int, ranks: tuple[int, int]) -> str:
    if ranks == (out, how.kernel[0]) or (how.by == "kept" and how.kept == 1):
        return f"ranks {out} and {how.kernel[0]} are its full ranks, so it was kept as it was"
    before = out * how.kernel[0] * how.kernel[1] * how.kernel[2]
    if how.by != "rank" and tucker_parameters(out, how.kernel, ranks) >= before:
        return (
            f"ranks {ranks[0]} and {ranks[1]} would take no fewer parameters, so it was kept as "
            "it was"
        )
    return ""


@blueprint.register
def blueprint_placed_tucker(how: PlacedTucker, shape: tuple[int, int]) -> Stored:
    """Upper bound if ranks are chosen by energy, which only the weights determine: at most the
    layer's current size.
    """
    dense = Whole(shape, sketch(*shape, dtype=getattr(torch, how.own)), how.kept_because)
    if how.kept_because or how.by == "energy":
        return dense
    ranks = tucker_ranks(how, shape[0], how.kernel, None)
    if reason := why_tucker_stays(how, shape[0], ranks):
        return Whole(shape, dense.weight, reason)
    sizes = (
        (shape[0], ranks[0]),
        (ranks[0], ranks[1] * how.kernel[1] * how.kernel[2]),
        (ranks[1], how.kernel[0]),
    )
    return TuckerKernel(shape, *how.kernel[1:], *sketches(sizes, dtype_of(how)))


def sketches(sizes: Any, dtype: torch.dtype) -> list[Dense]:
    return [Dense(size, sketch(*size, dtype=dtype)) for size in sizes]


# --- CP -------------------------------------------------------------------------------------------


@compress.register
def compress_placed_cp(how: PlacedCP, weight: torch.Tensor, seen: None = None) -> Stored:
    """``weight``: (out, in_ * height * width) float32"""
    if reason := how.kept_because or why_cp_stays(how, len(weight)):
        return whole(how, weight, reason)
    factors = cp(array(weight, how.kernel), cp_rank(how, len(weight)), how.iterations)
    outputs, inputs, down, across = (
        torch.from_numpy(each).float().to(weight.device) for each in factors
    )
    return CPKernel(
        tuple(weight.shape),
        part(outputs, how),
        part(inputs.T, how),
        part(down.T, how),
        part(across.T, how),
    )


def cp(kernel: np.ndarray, rank: int, iterations: int) -> list[np.ndarray]:
    """A matrix of ``rank`` columns for each axis; each term's strength is shared out evenly, so
    that none of them is large.
    """
    from tensorly.decomposition import parafac

    with tensorly_ready():
        strengths, factors = parafac(
            kernel,
            rank=rank,
            n_iter_max=iterations,
            init="svd",
            tol=SAME,
            random_state=0,
            normalize_factors=True,
        )
    return [
        each * np.sign(strengths) ** (axis == 0) * np.abs(strengths) ** (1 / len(factors))
        for axis, each in enumerate(factors)
    ]


def cp_rank(how: PlacedCP, out: int) -> int:
    return (
        how.rank
        if how.by == "rank"
        else max(1, int(how.kept * out * np.prod(how.kernel) / (out + sum(how.kernel))))
    )


def full_cp_rank(out: int, kernel: Kernel) -> int:
    """Terms with which every kernel of that shape can be written exactly: one for each place on all
    axes but the longest.
    """
    axes = (out, *kernel)
    return int(np.prod(axes)) // max(axes)


def why_cp_stays(how: PlacedCP, out: int) -> str:
    full = full_cp_rank(out, how.kernel)
    if cp_rank(how, out) >= full or (how.by == "kept" and how.kept == 1):
        return f"{full:,} terms can be any kernel of its shape, so it was kept as it was"
    return ""


@blueprint.register
def blueprint_placed_cp(how: PlacedCP, shape: tuple[int, int]) -> Stored:
    if reason := how.kept_because or why_cp_stays(how, shape[0]):
        return Whole(shape, sketch(*shape, dtype=getattr(torch, how.own)), reason)
    rank = cp_rank(how, shape[0])
    return CPKernel(
        shape, *sketches([(shape[0], rank), *((rank, size) for size in how.kernel)], dtype_of(how))
    )
