"""Two views of one input."""

import torch
from torch import nn

from engine.techniques.distillation.distill.r_drop import (
    MASKED_SHARE,
    has_dropout,
    perturbed_batch,
    shifted_images,
)
from engine.training import EncodedExamples
from tests.matrices import normal


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
