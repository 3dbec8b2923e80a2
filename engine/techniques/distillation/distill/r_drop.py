"""A student trained to give equal predictions for two views of one input (R-Drop, Liang et al.
2021, arXiv:2106.14448).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.functional import pad

from engine.models.loading import tokenizer_of
from engine.models.model_source import ModelSource
from engine.techniques.distillation.distill.config import Distill
from engine.techniques.distillation.distill.distillation_loss import batch_label_loss
from engine.training import EncodedExamples
from engine.training.loop import Loss, batch_logits
from engine.training.losses import teacher_loss

MASKED_SHARE = 0.1  # share of a text's tokens that a view masks
# offsets of an image in one that is padded by a pixel on all sides
SHIFTS = torch.tensor([(0, 1), (2, 1), (1, 0), (1, 2)])

View = Callable[[EncodedExamples], EncodedExamples]


@dataclass
class TwoViews:
    """The first view is the training loop's pass. The second one is computed here once per batch,
    with gradients.
    """

    config: Distill
    student: nn.Module
    second: View
    cached_batch: EncodedExamples | None = None
    cached_logits: torch.Tensor | None = None

    def terms(self) -> dict[str, tuple[float, Loss]]:
        weight = self.config.distill_weight
        return {"labels": (1 - weight, self.label_loss), "agreement": (weight, self.agreement_loss)}

    def label_loss(self, logits: torch.Tensor, batch: EncodedExamples) -> torch.Tensor:
        """Mean loss of both views."""
        return (
            batch_label_loss(logits, batch)
            + batch_label_loss(self.second_view_logits(logits, batch), batch)
        ) / 2

    def agreement_loss(self, logits: torch.Tensor, batch: EncodedExamples) -> torch.Tensor:
        """Mean KL divergence in both directions."""
        again, temperature = self.second_view_logits(logits, batch), self.config.temperature
        return (
            teacher_loss(logits, again, temperature) + teacher_loss(again, logits, temperature)
        ) / 2

    def second_view_logits(self, logits: torch.Tensor, batch: EncodedExamples) -> torch.Tensor:
        if self.cached_batch is not batch:
            self.cached_batch, self.cached_logits = (
                batch,
                batch_logits(self.student, self.second(batch), logits.device),
            )
        return self.cached_logits


def second_view(model: nn.Module, folder: ModelSource) -> View:
    """Second view of a batch: the same input if the model has dropout, else a text with masked
    tokens, or an image shifted by one pixel.
    """
    if has_dropout(model):
        return lambda batch: batch
    tokenizer = tokenizer_of(folder) if folder.kind != "image-classification" else None
    token_ids = [
        getattr(tokenizer, name, None) for name in ("mask_token_id", "pad_token_id", "unk_token_id")
    ]
    hidden = next((value for value in token_ids if value is not None), 0)
    return lambda batch: perturbed_batch(batch, hidden)


def has_dropout(model: nn.Module) -> bool:
    """Return True if the model has dropout. Some attention layers store their dropout probability
    as a number.
    """
    shares = [
        module.p for module in model.modules() if isinstance(module, nn.modules.dropout._DropoutNd)
    ]
    return any(
        share > 0
        for share in (
            *shares,
            *(getattr(module, "attention_dropout", 0.0) for module in model.modules()),
        )
        if isinstance(share, float)
    )


def perturbed_batch(batch: EncodedExamples, mask_token: int) -> EncodedExamples:
    if "pixel_values" in batch.inputs:
        return replace(
            batch,
            inputs=batch.inputs | {"pixel_values": shifted_images(batch.inputs["pixel_values"])},
        )
    tokens = batch.inputs["input_ids"]
    return replace(
        batch,
        inputs=batch.inputs
        | {"input_ids": tokens.masked_fill(torch.rand(tokens.shape) < MASKED_SHARE, mask_token)},
    )


def shifted_images(images: torch.Tensor) -> torch.Tensor:
    """Shift each image by one pixel in a random direction, repeating its edge. (examples, channels,
    height, width) both
    """
    height, width = images.shape[-2:]
    larger, sides = (
        pad(images, (1, 1, 1, 1), mode="replicate"),
        SHIFTS[torch.randint(len(SHIFTS), (len(images),))].tolist(),
    )
    return torch.stack(
        [
            image[:, top : top + height, left : left + width]
            for image, (top, left) in zip(larger, sides, strict=True)
        ]
    )
