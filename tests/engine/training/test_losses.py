"""Losses against closed forms."""

import pytest
import torch
from torch.nn.functional import (
    cosine_similarity,
    cross_entropy,
    kl_div,
    log_softmax,
    mse_loss,
    softmax,
)

from engine.training.losses import (
    IGNORE_INDEX,
    aligned_targets,
    attention_transfer_loss,
    feature_loss,
    label_loss,
    teacher_loss,
)


def test_a_text_is_judged_by_the_next_token():
    logits, tokens = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    assert label_loss(logits, tokens) == pytest.approx(
        cross_entropy(logits[:, :-1].reshape(-1, 7), tokens[:, 1:].reshape(-1)).item()
    )
    assert aligned_targets(logits, tokens)[1].tolist() == tokens[:, 1:].flatten().tolist()


def test_the_teacher_loss_is_zero_for_equal_logits_and_kl_at_temperature_one():
    ours, theirs = torch.randn(4, 6), torch.randn(4, 6)
    p = softmax(theirs, -1)
    assert teacher_loss(ours, ours, 3.0).item() == pytest.approx(0, abs=1e-6)
    assert teacher_loss(ours, theirs, 1.0).item() == pytest.approx(
        (p * (p.log() - ours.log_softmax(-1))).sum(-1).mean().item(), rel=1e-5
    )


def test_loss_terms_equal_torch_and_their_closed_forms():
    ours, theirs = torch.randn(5, 7), torch.randn(5, 7)
    p, q = softmax(theirs / 3, -1), log_softmax(ours / 3, -1)
    assert teacher_loss(ours, theirs, 3.0).item() == pytest.approx(
        9 * (p * (p.log() - q)).sum(-1).mean().item(), rel=1e-5
    )
    assert teacher_loss(ours, theirs, 3.0).item() == pytest.approx(
        9 * kl_div(q, p, reduction="batchmean").item(), rel=1e-5
    )
    assert feature_loss(ours, theirs).item() == pytest.approx(mse_loss(ours, theirs).item())
    assert feature_loss(ours, theirs, cosine=True).item() == pytest.approx(
        1 - cosine_similarity(ours, theirs).mean().item(), rel=1e-5
    )


def test_attention_transfer_is_independent_of_width_and_scale():
    states = torch.randn(3, 6, 8)
    assert attention_transfer_loss(states, 5 * states).item() == pytest.approx(0, abs=1e-6)
    assert attention_transfer_loss(states, states.repeat(1, 1, 2)).item() == pytest.approx(
        0, abs=1e-6
    )
    first_map, second_map = (each.square().mean(-1) for each in (states, states.flip(1)))
    apart = first_map / first_map.norm(dim=-1, keepdim=True) - second_map / second_map.norm(
        dim=-1, keepdim=True
    )
    assert attention_transfer_loss(states, states.flip(1)).item() == pytest.approx(
        apart.square().sum(-1).mean().item(), rel=1e-5
    )


def test_the_squared_temperature_keeps_gradients_at_one_scale():
    """For a large T the gradient by the logits is their centered difference over the number of
    classes
    (Hinton et al. 2015, equation 4).
    """
    theirs, ours = torch.randn(4, 6), torch.randn(4, 6, requires_grad=True)
    (slope,) = torch.autograd.grad(teacher_loss(ours, theirs, 1000.0), ours)
    gap = (ours - theirs).detach()
    torch.testing.assert_close(
        slope, (gap - gap.mean(-1, keepdim=True)) / 6 / 4, rtol=0.02, atol=1e-4
    )


def test_examples_without_a_label_are_ignored():
    logits, targets = torch.randn(4, 3), torch.tensor([0, IGNORE_INDEX, 2, IGNORE_INDEX])
    assert label_loss(logits, targets).item() == pytest.approx(
        cross_entropy(logits[::2], targets[::2]).item()
    )
    assert label_loss(logits, torch.full((4,), IGNORE_INDEX)).item() == 0
