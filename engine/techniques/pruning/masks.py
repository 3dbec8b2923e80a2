"""Masks of the most important weights per row, per layer, among every M neighbors, or among all
layers.
"""

from collections.abc import Callable

import torch

from engine.errors import PlainError, option_name
from engine.models.layers import SKIP
from engine.techniques.pruning.options import Pruning, parse_pattern

LOW_BITS = 16


def keep_mask(score: torch.Tensor, config: Pruning) -> torch.Tensor:
    """Mask of the weights to keep. (out, in_) scores -> (out, in_) bool. For a global scope,
    ``config`` has the layer's own share.
    """
    if config.pattern:
        return n_of_m_mask(score, *parse_pattern(config.pattern))
    if config.scope == "row":
        return ~smallest_mask(score, removed_count(config.sparsity, score.shape[1]))
    return ~smallest_mask(score.flatten(), removed_count(config.sparsity, score.numel())).view_as(
        score
    )


def removed_count(sparsity: float, count: int) -> int:
    """Number of weights to remove, rounded as ``torch.nn.utils.prune`` does."""
    return round(sparsity * count)


def smallest_mask(score: torch.Tensor, count: int) -> torch.Tensor:
    """Mask of the ``count`` smallest scores along the last axis. bool"""
    marked = torch.zeros_like(score, dtype=torch.bool)
    if count:
        marked.scatter_(-1, score.topk(count, -1, largest=False, sorted=False).indices, True)
    return marked


def n_of_m_mask(score: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """Mask of the N best of every M neighbors. Raises PlainError if M does not divide a row."""
    check_divisible(score.shape[1], m)
    return (~smallest_mask(score.unflatten(1, (-1, m)), m - n)).flatten(1)


def check_divisible(in_: int, m: int) -> None:
    if in_ % m:
        raise PlainError(
            f"A row of {in_:,} weights cannot be cut into groups of {m}; "
            f"name the layer under {SKIP}, or leave {option_name(Pruning, 'pattern')} empty."
        )


# --- one threshold for all layers -----------------------------------------------------------------


def layer_shares(
    scores: Callable[[str], torch.Tensor], sizes: dict[str, int], sparsity: float
) -> dict[str, float]:
    """Share of each layer that is removed with the least important weights of all layers.

    ``scores`` gives the nonnegative scores of a layer and is called twice. Nonnegative floats are
    ordered like their bits, so a histogram of their upper halves finds a bucket that contains the
    threshold, and scores of two layers are never in memory together.
    """
    total = removed_count(sparsity, sum(sizes.values()))
    counts = {name: upper_bits(scores(name)).bincount(minlength=1 << LOW_BITS) for name in sizes}
    passed = sum(counts.values()).cumsum(0)
    bucket = int((passed < total).sum())  # the bucket of upper halves that contains the threshold
    before = {name: int(count[:bucket].sum()) for name, count in counts.items()}
    scores_in_layer = {name: scores_in_bucket(scores(name).flatten(), bucket) for name in sizes}
    left = total - sum(before.values())
    threshold = (
        torch.cat(list(scores_in_layer.values())).sort().values[left - 1]
        if left
        else torch.tensor(-1.0)
    )
    below = {
        name: before[name] + int((scores < threshold).sum())
        for name, scores in scores_in_layer.items()
    }
    ties = total - sum(below.values())
    for name, layer_scores in scores_in_layer.items():
        more = min(ties, int((layer_scores == threshold).sum()))
        below[name], ties = below[name] + more, ties - more
    return {name: below[name] / size for name, size in sizes.items()}


def scores_in_bucket(score: torch.Tensor, bucket: int) -> torch.Tensor:
    """Scores in this bucket."""
    return score[upper_bits(score) == bucket]


def upper_bits(score: torch.Tensor) -> torch.Tensor:
    """Upper sixteen bits of each score. (weights,) int32"""
    return score.float().flatten().view(torch.int32) >> LOW_BITS
