"""K-means in one dimension (Deep Compression, arXiv:1510.00149): Lloyd's algorithm on sorted
weights.

Sorted once, a cluster is a stretch between two places, and its mean is a difference of running
sums: a round costs a few searches, however many weights there are. Each mean is moved beyond its
cluster's by PUSH, which converges in a third of the rounds and, being less than twice as far, never
raises the squared error either: the result is at least as good as its start.
"""

import numpy as np
import torch
from torch.nn.functional import pad

from engine.techniques.hooks import compress, meta_tensor, storage_plan
from engine.techniques.quantization.codebook.config import Codebook
from engine.tensors.codebook import CodebookWeight
from engine.tensors.huffman import CHUNK_SYMBOLS, code_lengths, encode_symbols
from engine.tensors.packing import pack_bits, packed_size_bytes

ROUNDS = 100
OVERRELAXATION = 1.8  # convergence of Lloyd's algorithm, relative to the distance to the mean
BINS = 1024  # bins of the weights' density
# maximum weights for finding centroids; of more, every second, third ... in sorted order
MAX_CLUSTERED_WEIGHTS = 1 << 24


@compress.register
def compress_codebook(config: Codebook, weight: torch.Tensor) -> CodebookWeight:
    rows = rows_per_book(config, weight.shape[0])
    parts = row_bands(weight, rows)
    codebooks = [centroids(part, config) for part in parts]
    indices = torch.cat(
        [
            nearest_centroids(part, codebook).flatten()
            for part, codebook in zip(parts, codebooks, strict=True)
        ]
    )
    return CodebookWeight(
        tuple(weight.shape),
        config.bits,
        rows,
        books=torch.cat(codebooks),
        **packed_indices(indices, config),
    )


def rows_per_book(config: Codebook, out: int) -> int:
    return min(config.rows, out) or out


def row_bands(weight: torch.Tensor, rows: int) -> list[torch.Tensor]:
    """Bands of rows, each as one row, and the last one if it is shorter. (out, in_) -> (bands, rows
    * in_), (1, rest * in_)
    """
    full_rows = len(weight) // rows * rows
    return [
        part
        for part in (
            weight[:full_rows].reshape(-1, rows * weight.shape[1]),
            weight[full_rows:].reshape(1, -1),
        )
        if part.numel()
    ]


def centroids(values: torch.Tensor, config: Codebook) -> torch.Tensor:
    """Ascending centroids, (codebooks, 2^bits) float32, from the initialization with the least
    error. values: (codebooks, count)
    """
    ordered = sorted_rows(values)[:, :: -(-values.shape[1] // MAX_CLUSTERED_WEIGHTS)].double()
    sums = pad(ordered.cumsum(1), (1, 0))
    ends = [
        lloyd_means(ordered, sums, start(ordered, 2**config.bits)) for start in STARTS[config.start]
    ]
    best = torch.stack([explained_squares(ordered, sums, means) for means in ends]).argmax(0)
    return torch.stack(ends)[best, torch.arange(len(best), device=best.device)].float()


def lloyd_means(ordered: torch.Tensor, sums: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    edges = None
    for _ in range(ROUNDS):
        before, edges = edges, cluster_edges(ordered, means)
        target = cluster_means(sums, edges, means)
        if before is not None and torch.equal(before, edges):
            break
        means = means.lerp(target, OVERRELAXATION).sort(1).values
    return cluster_means(sums, cluster_edges(ordered, means), means)


def explained_squares(
    ordered: torch.Tensor, sums: torch.Tensor, means: torch.Tensor
) -> torch.Tensor:
    """Squared weights minus the squared error of each codebook: the sum of total^2 / count over
    clusters.
    """
    edges = cluster_edges(ordered, means)
    return (sums.gather(1, edges).diff(dim=1).square() / edges.diff(dim=1).clamp_min(1)).sum(1)


def cluster_means(sums: torch.Tensor, edges: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """Means of the clusters; an empty cluster keeps its centroid."""
    counts = edges.diff(dim=1)
    return torch.where(counts > 0, sums.gather(1, edges).diff(dim=1) / counts.clamp_min(1), means)


def sorted_rows(values: torch.Tensor) -> torch.Tensor:
    """Each row sorted, with numpy, which is a dozen times faster than torch on a CPU."""
    return (
        torch.from_numpy(np.sort(values.numpy(), axis=1))
        if values.device.type == "cpu"
        else values.sort(1).values
    )


def cluster_edges(ordered: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """Start of each cluster in the sorted weights, and the end: weights belong to the nearest
    centroid, (codebooks, 2^bits + 1).
    """
    inner = torch.searchsorted(ordered, midpoints(means))
    return pad(pad(inner, (1, 0)), (0, 1), value=ordered.shape[1])


def midpoints(means: torch.Tensor) -> torch.Tensor:
    return (means[:, 1:] + means[:, :-1]) / 2


def nearest_centroids(values: torch.Tensor, centroids_of_row: torch.Tensor) -> torch.Tensor:
    """Index of the nearest centroid, uint8. (codebooks, count)"""
    return torch.searchsorted(midpoints(centroids_of_row), values.contiguous(), out_int32=True).to(
        torch.uint8
    )


# --- where it starts: section 3.2, and one more; each (books, clusters) ascending -----------------


def evenly_spaced(ordered: torch.Tensor, clusters: int) -> torch.Tensor:
    low, high = ordered[:, :1], ordered[:, -1:]
    return low + (high - low) * torch.linspace(
        0, 1, clusters, device=ordered.device, dtype=ordered.dtype
    )


def at_quantiles(ordered: torch.Tensor, clusters: int) -> torch.Tensor:
    """Centers of intervals with equally many weights."""
    positions = (torch.arange(clusters, device=ordered.device) + 0.5) / clusters * ordered.shape[1]
    return ordered[:, positions.long()]


def random_weights(ordered: torch.Tensor, clusters: int) -> torch.Tensor:
    """Weights chosen by the run's seed, independent of other random numbers."""
    generator = torch.Generator().manual_seed(torch.initial_seed())
    indices = torch.randint(ordered.shape[1], (clusters,), generator=generator).sort().values
    return ordered[:, indices.to(ordered.device)]


def at_cube_root_density(ordered: torch.Tensor, clusters: int) -> torch.Tensor:
    """Levels with the density of the cube root of the weights' density, which is optimal for many
    clusters (Panter and Dite 1951).
    """
    edges = evenly_spaced(ordered, BINS + 1)
    reached = torch.searchsorted(ordered, edges).diff(dim=1).double().pow(1 / 3).cumsum(1)
    targets = (torch.arange(clusters, device=ordered.device) + 0.5) / clusters * reached[:, -1:]
    return ((edges[:, 1:] + edges[:, :-1]) / 2).gather(1, torch.searchsorted(reached, targets))


STARTS = {
    "best": (evenly_spaced, at_cube_root_density),
    "linear": (evenly_spaced,),
    "density": (at_quantiles,),
    "random": (random_weights,),
}


# --- how indices are written ----------------------------------------------------------------------


def packed_indices(indices: torch.Tensor, config: Codebook) -> dict[str, torch.Tensor]:
    if config.coding == "fixed":
        return {"codes": pack_bits(indices, config.bits)}
    counts = indices.bincount(minlength=2**config.bits)
    lengths = torch.tensor(code_lengths(counts.tolist()), dtype=torch.uint8, device=indices.device)
    codes, chunk_bits = encode_symbols(indices, lengths)
    return {"codes": codes, "lengths": lengths, "chunk_bits": chunk_bits}


@storage_plan.register
def storage_plan_codebook(config: Codebook, shape: tuple[int, int]) -> CodebookWeight:
    """Storage plan. Huffman-coded indices are planned as uncoded ones, because their length depends
    on the weights.
    """
    out, in_ = shape
    rows, count = rows_per_book(config, out), out * in_
    huffman = {
        "lengths": meta_tensor(2**config.bits, dtype=torch.uint8),
        "chunk_bits": meta_tensor(-(-count // CHUNK_SYMBOLS), dtype=torch.int16),
    }
    return CodebookWeight(
        shape,
        config.bits,
        rows,
        codes=meta_tensor(packed_size_bytes(count, config.bits), dtype=torch.uint8),
        books=meta_tensor(-(-out // rows), 2**config.bits),
        **(huffman if config.coding == "huffman" else {}),
    )
