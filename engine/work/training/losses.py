"""Terms of a loss, in nats a target."""

from collections.abc import Iterable

import torch
from torch.nn.functional import cross_entropy, kl_div


def aligned(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each place beside what it should say: of a text, the next token.  (places, classes), (places,)"""
    if logits.ndim == 3:
        return logits[:, :-1].flatten(0, 1).float(), targets[:, 1:].flatten()
    return logits.float(), targets


def by_labels(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy."""
    return cross_entropy(*aligned(logits, targets))


def by_teacher(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL of softened answers (Hinton et al. 2015, arXiv:1503.02531): slopes of the size that labels give, whatever T."""
    ours, theirs = ((each.flatten(0, -2).float() / temperature).log_softmax(-1) for each in (logits, teacher))
    return temperature**2 * kl_div(ours, theirs, log_target=True, reduction="batchmean")


def absolute(weights: Iterable[torch.Tensor]) -> torch.Tensor:
    """The sum of |w| over all weights (L1)."""
    return sum((weight.abs().sum() for weight in weights), torch.tensor(0.0))
