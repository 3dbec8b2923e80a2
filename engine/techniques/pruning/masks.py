"""Which weights stay: those that matter most, inside a row, a layer, every M neighbors, or among
all layers.
"""

from collections.abc import Callable

import torch

from engine.errors import PlainError
from engine.techniques.pruning.options import Pruning, n_of_m

LOW_BITS = 16


def stays(score: torch.Tensor, how: Pruning) -> torch.Tensor:
    """(out, in_) of scores -> (out, in_) bool. A global scope has become each layer's own share by
    now.
    """
    if how.pattern:
        return best_of_every(score, *n_of_m(how.pattern))
    if how.scope == "row":
        return ~least(score, gone(how.sparsity, score.shape[1]))
    return ~least(score.flatten(), gone(how.sparsity, score.numel())).view_as(score)


def gone(sparsity: float, count: int) -> int:
    """Number of weights to remove, rounded as ``torch.nn.utils.prune`` does."""
    return round(sparsity * count)


def least(score: torch.Tensor, count: int) -> torch.Tensor:
    """Which are the ``count`` smallest along the last axis.  bool"""
    marked = torch.zeros_like(score, dtype=torch.bool)
    if count:
        marked.scatter_(-1, score.topk(count, -1, largest=False, sorted=False).indices, True)
    return marked


def best_of_every(score: torch.Tensor, kept: int, of: int) -> torch.Tensor:
    """The N best of every M neighbors. Raises PlainError where M does not divide a row."""
    refuse_uneven(score.shape[1], of)
    return (~least(score.unflatten(1, (-1, of)), of - kept)).flatten(1)


def refuse_uneven(in_: int, of: int) -> None:
    if in_ % of:
        raise PlainError(
            f"A row of {in_:,} weights cannot be cut into groups of {of}; "
            "name the layer under Layers to skip (layers.skip), or leave the pattern empty."
        )


# --- one threshold for all layers -----------------------------------------------------------------


def shares(
    scores: Callable[[str], torch.Tensor], sizes: dict[str, int], sparsity: float
) -> dict[str, float]:
    """Share of each layer that is removed with the least important weights of all layers.

    ``scores`` gives a layer's, none below zero, and is asked twice: floats that are not negative
    are in the order of their bits, so that a
    count of their upper halves finds the threshold's neighborhood, and no two layers' scores are
    held at once.
    """
    total = gone(sparsity, sum(sizes.values()))
    counts = {name: upper(scores(name)).bincount(minlength=1 << LOW_BITS) for name in sizes}
    passed = sum(counts.values()).cumsum(0)
    at = int((passed < total).sum())  # the upper half in which the threshold lies
    before = {name: int(each[:at].sum()) for name, each in counts.items()}
    inside = {name: inside_of(scores(name).flatten(), at) for name in sizes}
    left = total - sum(before.values())
    threshold = (
        torch.cat(list(inside.values())).sort().values[left - 1] if left else torch.tensor(-1.0)
    )
    below = {name: before[name] + int((each < threshold).sum()) for name, each in inside.items()}
    ties = total - sum(below.values())
    for name, each in inside.items():
        more = min(ties, int((each == threshold).sum()))
        below[name], ties = below[name] + more, ties - more
    return {name: below[name] / size for name, size in sizes.items()}


def inside_of(score: torch.Tensor, at: int) -> torch.Tensor:
    """The scores with that upper half."""
    return score[upper(score) == at]


def upper(score: torch.Tensor) -> torch.Tensor:
    """The upper sixteen bits of each score.  (weights,) int32"""
    return score.float().flatten().view(torch.int32) >> LOW_BITS
