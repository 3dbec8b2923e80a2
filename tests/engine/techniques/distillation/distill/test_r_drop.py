"""Two views of one input."""

import pytest
import torch
from torch import nn
from torch.nn.functional import (
    softmax,
)

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.techniques.distillation.distill.config import Distill
from engine.techniques.distillation.distill.r_drop import (
    MASKED_SHARE,
    TwoViews,
    has_dropout,
    perturbed_batch,
    shifted_images,
)
from engine.training import EncodedExamples
from tests.distillation import curve
from tests.matrices import normal
from tests.training_examples import exercises


def test_each_image_is_shifted_by_one_pixel_with_its_edge_twice():
    images = normal(40, 2, 6, 7)
    found = set()
    for image, shifted in zip(images, shifted_images(images), strict=True):
        for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
            edge = 0 if step == 1 else image.shape[axis] - 1
            due = image.roll(step, axis)
            due.select(axis, edge).copy_(image.select(axis, edge))
            if torch.equal(shifted, due):
                found.add((axis, step))
                break
        else:
            raise AssertionError("shifted otherwise")
    assert len(found) == 4, "every side is drawn"


def test_a_share_of_the_tokens_is_masked_and_the_rest_stays():
    ids = torch.full((50, 200), 7)
    batch = EncodedExamples({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids[:, 0])
    view = perturbed_batch(batch, mask_token=3)
    masked = (view.inputs["input_ids"] == 3).float().mean().item()
    assert abs(masked - MASKED_SHARE) < 0.02
    assert set(view.inputs["input_ids"].unique().tolist()) == {3, 7}
    assert view.inputs["attention_mask"] is batch.inputs["attention_mask"]
    assert (ids == 7).all(), "the batch is left untouched"


def test_dropout_of_zero_is_none():
    assert has_dropout(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)))
    assert not has_dropout(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)))
    attention = nn.Linear(2, 2)
    attention.attention_dropout = 0.1
    assert has_dropout(nn.Sequential(attention))


@pytest.mark.parametrize("architecture", ["llama", "bert", "resnet"])
def test_the_two_view_loss_is_the_mean_of_labels_and_agreement(architecture, run_step):
    outcome = run_step(architecture, setting="self", views="two-views", distill_weight=0.5)
    apart, labels, loss = (curve(outcome, name) for name in ("agreement", "labels", "loss"))
    assert len(apart) == 4 and all(each > 0 for each in apart)
    assert loss == pytest.approx(
        [(one + other) / 2 for one, other in zip(labels, apart, strict=True)], rel=1e-4
    )


def test_agreement_is_the_mean_of_both_kl_divergences_with_gradients_to_both_views():
    one, other = (torch.randn(5, 7, requires_grad=True) for _ in range(2))
    views = TwoViews(
        Distill(setting="self", views="two-views", temperature=1.0),
        None,
        None,
        batch := exercises("bert"),
        other,
    )
    p, q = softmax(one, -1), softmax(other, -1)
    apart = views.agreement_loss(one, batch)
    assert apart.item() == pytest.approx(
        (((p - q) * (p.log() - q.log())).sum(-1).mean() / 2).item(), rel=1e-4
    )
    apart.backward()
    assert one.grad.abs().sum() > 0 and other.grad.abs().sum() > 0


def test_without_dropout_a_view_masks_tokens_or_shifts_the_image_by_one_pixel():
    texts, pictures = (
        EncodedExamples({"input_ids": torch.full((64, 64), 5)}, torch.zeros(64)),
        torch.arange(2 * 36.0).view(2, 1, 6, 6),
    )
    hidden = perturbed_batch(texts, 3).inputs["input_ids"]
    assert set(hidden.unique().tolist()) == {3, 5} and 0.07 < (hidden == 3).float().mean() < 0.13
    inner = perturbed_batch(EncodedExamples({"pixel_values": pictures}, torch.zeros(2)), 0).inputs[
        "pixel_values"
    ][:, 0, 1:-1, 1:-1]
    around = [
        pictures[:, 0, 1 + y : 5 + y, 1 + x : 5 + x] for y, x in ((0, 1), (0, -1), (1, 0), (-1, 0))
    ]
    assert all(any(torch.equal(inner[row], each[row]) for each in around) for row in range(2))
    assert has_dropout(torch.nn.Dropout(0.1)) and not has_dropout(torch.nn.Dropout(0.0))


def test_two_views_cannot_compare_hidden_states():
    with pytest.raises(PlainError, match="two views have no teacher to compare hidden states with"):
        Recipe.from_dict(
            {
                "steps": [
                    {
                        "technique": "distill",
                        "setting": "self",
                        "views": "two-views",
                        "features": "mse",
                    }
                ]
            }
        )
