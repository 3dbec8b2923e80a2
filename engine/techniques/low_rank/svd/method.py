"""SVD of a weight, plain or whitened by data: the nearest matrix of a rank, as two factors."""

from dataclasses import dataclass

import torch

from engine.calibration import Seen, Stream
from engine.calibration.gradient_stats import Slopes
from engine.errors import PlainError
from engine.events import ProgressEvent
from engine.models.layers import Layer, blocks_of
from engine.runtime.threads import threads_for
from engine.step.layer_swap import Trial
from engine.techniques.hooks import blueprint, compress, plan, sketch
from engine.techniques.low_rank.options import Whitened
from engine.techniques.low_rank.ranks import (
    Layered,
    rank_of_energy,
    rank_of_share,
    shared_out,
    shared_out_by_energy,
)
from engine.techniques.low_rank.svd.config import SVD
from engine.techniques.low_rank.whitening import Whitening, whitening
from engine.tensors.low_rank import LowRank, Whole, break_even, saves
from engine.tensors.weights import Dense, Stored

MORE = 8  # directions that are sought beyond those kept, by the randomized solver


class PlacedSVD(SVD):
    """One layer's own setting."""

    own: str = "float32"  # number format of its weights in the file
    settled: int | None = None  # its rank, where a budget for all layers has found it


# --- each layer's rank ----------------------------------------------------------------------------


@plan.register
def plan_svd(how: SVD, layers: list[Layer], trial: Trial | None = None) -> dict[str, PlacedSVD]:
    refuse_beyond_full(how, layers)
    placed = {layer.name: PlacedSVD(**how.model_dump(), own=layer.dtype) for layer in layers}
    if how.by == "rank" or how.scope == "layer" or trial is None:
        return placed
    ranks = ranks_of(how, layered_by(how, layers, trial))
    return {
        name: each.model_copy(update={"settled": ranks.get(name)}) for name, each in placed.items()
    }


def ranks_of(how: SVD, layers: dict[str, Layered]) -> dict[str, int]:
    """Ranks of all layers for one budget."""
    return (
        shared_out(layers, how.kept)
        if how.by == "kept"
        else shared_out_by_energy(layers, how.energy)
    )


def refuse_beyond_full(how: SVD, layers: list[Layer]) -> None:
    largest = max(layers, key=lambda layer: min(layer.matrix_shape))
    full = min(largest.matrix_shape)
    if how.by == "rank" and how.rank > full:
        raise PlainError(beyond_full(how.rank, full, largest.name))


def beyond_full(rank: int, full: int, layer: str) -> str:
    return (
        f"Rank {rank:,} is above the full rank of every layer, {full:,} at most ({layer}), so "
        "nothing would change; give a smaller one."
    )


def layered_by(how: Whitened, layers: list[Layer], trial: Trial) -> dict[str, Layered]:
    """Gain of each layer by its directions; layers whose data cannot be observed are left out."""
    spectra = spectra_of(how, layers, trial)
    return {
        layer.name: Layered.of(layer.matrix_shape, spectra[layer.name])
        for layer in layers
        if layer.name in spectra
    }


def spectra_of(how: Whitened, layers: list[Layer], trial: Trial) -> dict[str, torch.Tensor]:
    """Singular values of every layer's whitened weight. Gram matrices are held for one block at a
    time.
    """
    if how.needs == "gram":
        return streamed_spectra(how, layers, trial)
    names = [layer.name for layer in layers]
    seen = trial.knows(how.needs, names)
    found = {}
    for done, name in enumerate(names):
        trial.bench.progress(ProgressEvent("finding-ranks", done, len(names)))
        if how.needs == "nothing" or name in seen:
            found[name] = singular_values(whitening(how, seen.get(name)), trial.weight_of(name))
    return found


def streamed_spectra(how: Whitened, layers: list[Layer], trial: Trial) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    stream = Stream(
        trial.original.model,
        trial.batches,
        trial.original.device,
        lambda: trial.bench.progress(ProgressEvent("finding-ranks", len(found), len(layers))),
    )
    for block in blocks_of(layers):
        for name, seen in stream.look(
            block[0].block, [layer.name for layer in block], True
        ).items():
            found[name] = singular_values(whitening(how, seen), trial.weight_of(name))
        stream.go_on(block[0].block)
    return found


def singular_values(white: Whitening, weight: torch.Tensor) -> torch.Tensor:
    matrix = white.applied(weight)
    with threads_for(matrix.shape):
        return torch.linalg.svdvals(matrix)


# --- one layer ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Directions:
    """Singular vectors and values, the strongest first: all of them or as many as were sought."""

    left: torch.Tensor  # (out, found)
    values: torch.Tensor  # (found,)
    right: torch.Tensor  # (found, in_)

    def factors(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Each with the root of the values, so that neither is the larger one.  (out, rank), (rank,
        in_)
        """
        roots = self.values[:rank].sqrt()
        return self.left[:, :rank] * roots, self.right[:rank] * roots[:, None]


@compress.register
def compress_svd(how: SVD, weight: torch.Tensor, seen: Seen | Slopes | None = None) -> Stored:
    """``weight``: (out, in_) float32"""
    white = whitening(how, seen)
    rank, found = rank_and_directions(how, white.applied(weight))
    if reason := why_whole(how, weight.shape, rank):
        return Whole(tuple(weight.shape), weight.to(getattr(torch, own_dtype(how))), reason)
    return low_rank(*white.taken_back(*found.factors(rank)), dtype_of(how))


def rank_and_directions(how: SVD, matrix: torch.Tensor) -> tuple[int, Directions]:
    """Return the rank to keep and the directions found."""
    if how.by == "energy" and settled_of(how) is None:
        found = exact(matrix)
        return rank_of_energy(found.values, how.energy), found
    rank = fixed_rank(how, tuple(matrix.shape))
    return rank, directions(matrix, rank, how)


def settled_of(how: SVD) -> int | None:
    return how.settled if isinstance(how, PlacedSVD) else None


def own_dtype(how: SVD) -> str:
    return how.own if isinstance(how, PlacedSVD) else "float32"


def dtype_of(how: SVD) -> torch.dtype:
    return getattr(torch, own_dtype(how) if how.factors == "model" else how.factors)


def fixed_rank(how: SVD, shape: tuple[int, int]) -> int:
    """The rank where no singular value is needed to know it."""
    if (settled := settled_of(how)) is not None:
        return settled
    return min(how.rank, min(shape)) if how.by == "rank" else rank_of_share(shape, how.kept)


def why_whole(how: SVD, shape: tuple[int, int], rank: int) -> str:
    """Why a layer stays as it was; empty where it is factorized."""
    if rank >= min(shape):
        return f"rank {min(shape)} is its full rank, so it was kept as it was"
    if how.by != "rank" and not saves(shape, rank):
        return (
            f"rank {rank} is not below its break-even rank {break_even(shape):.1f}, so it was "
            "kept as it was"
        )
    return ""


def directions(matrix: torch.Tensor, rank: int, how: SVD) -> Directions:
    """At least ``rank`` of them."""
    return randomized(matrix, rank, how.iterations) if how.solver == "randomized" else exact(matrix)


def exact(matrix: torch.Tensor) -> Directions:
    with threads_for(matrix.shape):
        return Directions(*torch.linalg.svd(matrix, full_matrices=False))


def randomized(matrix: torch.Tensor, rank: int, iterations: int) -> Directions:
    """Randomized SVD; the random vectors are the same each time."""
    with (
        threads_for(matrix.shape),
        torch.random.fork_rng(devices=[matrix.device] if matrix.is_cuda else []),
    ):
        torch.manual_seed(0)
        left, values, right = torch.svd_lowrank(
            matrix, min(rank + MORE, min(matrix.shape)), iterations
        )
    return Directions(left, values, right.T)


def low_rank(left: torch.Tensor, right: torch.Tensor, dtype: torch.dtype) -> LowRank:
    parts = (Dense(tuple(part.shape), part.to(dtype).contiguous()) for part in (left, right))
    return LowRank((left.shape[0], right.shape[1]), *parts)


@blueprint.register
def blueprint_svd(how: SVD, shape: tuple[int, int]) -> Stored:
    """Exact where the rank follows from the shape; else the most that it can be."""
    rank = min(shape) if how.by == "energy" else fixed_rank(how, shape)
    if how.by == "kept" and how.scope == "global" and settled_of(how) is None:
        rank += 1  # shares of all layers together are not rounded down layer by layer
    if reason := why_whole(how, shape, rank):
        return Whole(shape, sketch(*shape, dtype=getattr(torch, own_dtype(how))), reason)
    return low_rank_sketch(shape, rank, dtype_of(how))


def low_rank_sketch(shape: tuple[int, int], rank: int, dtype: torch.dtype) -> LowRank:
    sizes = (shape[0], rank), (rank, shape[1])
    return LowRank(shape, *(Dense(size, sketch(*size, dtype=dtype)) for size in sizes))
