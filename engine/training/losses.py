"""Loss terms, in nats per target."""

from collections.abc import Iterable

import torch
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div, mse_loss, normalize

IGNORE_INDEX = -100  # target of an unlabeled example, which torch ignores


def aligned_targets(
    logits: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pair each output with its target; in a text, with the next token. (positions, classes),
    (positions,)
    """
    if logits.ndim == 3:
        return logits[:, :-1].flatten(0, 1).float(), targets[:, 1:].flatten()
    return logits.float(), targets


def label_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the labeled examples."""
    flat, flat_targets = aligned_targets(logits, targets)
    return (
        cross_entropy(flat, flat_targets)
        if (flat_targets != IGNORE_INDEX).any()
        else 0.0 * flat.sum()
    )


def teacher_loss(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL of softened predictions (Hinton et al. 2015, arXiv:1503.02531), so that the scale of
    gradients does not depend on T.
    """
    student, teacher_log_probabilities = (
        (values.flatten(0, -2).float() / temperature).log_softmax(-1)
        for values in (logits, teacher)
    )
    return temperature**2 * kl_div(
        student, teacher_log_probabilities, log_target=True, reduction="batchmean"
    )


def feature_loss(
    student: torch.Tensor, teacher: torch.Tensor, cosine: bool = False
) -> torch.Tensor:
    """Mean squared difference of two hidden states (FitNets, Romero et al. 2015, arXiv:1412.6550),
    or one minus their cosine (DistilBERT,
    Sanh et al. 2019, arXiv:1910.01108).  (..., width) both
    """
    if cosine:
        return (1 - cosine_similarity(student.float(), teacher.float(), dim=-1)).mean()
    return mse_loss(student.float(), teacher.float())


def attention_transfer_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Attention transfer (Zagoruyko & Komodakis 2017, arXiv:1612.03928, equation 2): squared
    distance of both maps of mean squared activations, each normalized, as a mean over examples. It
    does not depend on the widths. (examples, positions, width) both
    """
    student_map, teacher_map = (
        normalize(states.float().square().mean(-1), dim=-1) for states in (student, teacher)
    )
    return (student_map - teacher_map).square().sum(-1).mean()


def l1_norm(weights: Iterable[torch.Tensor]) -> torch.Tensor:
    """Sum of |w| over all weights (L1)."""
    return sum((weight.abs().sum() for weight in weights), torch.tensor(0.0))
