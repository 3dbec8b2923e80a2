"""Losses against closed forms."""

import pytest
import torch
from torch.nn.functional import cross_entropy, softmax

from engine.training.losses import aligned_targets, label_loss, teacher_loss


def test_a_text_is_judged_by_the_next_token():
    logits, tokens = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    assert label_loss(logits, tokens) == pytest.approx(
        cross_entropy(logits[:, :-1].reshape(-1, 7), tokens[:, 1:].reshape(-1)).item()
    )
    assert aligned_targets(logits, tokens)[1].tolist() == tokens[:, 1:].flatten().tolist()


def test_a_teacher_who_says_the_same_costs_nothing_and_at_one_degree_it_is_kl():
    ours, theirs = torch.randn(4, 6), torch.randn(4, 6)
    p = softmax(theirs, -1)
    assert teacher_loss(ours, ours, 3.0).item() == pytest.approx(0, abs=1e-6)
    assert teacher_loss(ours, theirs, 1.0).item() == pytest.approx(
        (p * (p.log() - ours.log_softmax(-1))).sum(-1).mean().item(), rel=1e-5
    )
