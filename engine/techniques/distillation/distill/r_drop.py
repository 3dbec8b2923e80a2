"""A student that learns to agree with itself on two views of one input (R-Drop, Liang et al. 2021,
arXiv:2106.14448).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.functional import pad

from engine.models.loading import tokenizer_of
from engine.models.model_source import Folder
from engine.techniques.distillation.distill.config import Distill
from engine.techniques.distillation.distill.distillation_loss import by_label
from engine.training import Exercises
from engine.training.loop import Loss, answers
from engine.training.losses import by_teacher

HIDDEN = 0.1  # share of a text's tokens that a view does not show
# where a picture begins in one that is a pixel larger on all sides
ASIDE = torch.tensor([(0, 1), (2, 1), (1, 0), (1, 2)])

View = Callable[[Exercises], Exercises]


@dataclass
class TwoViews:
    """The first view is the pass that the loop makes; the second is made here, once for each batch,
    and learns too.
    """

    how: Distill
    student: nn.Module
    second: View
    about: Exercises | None = None
    known: torch.Tensor | None = None

    def terms(self) -> dict[str, tuple[float, Loss]]:
        weight = self.how.distill_weight
        return {"labels": (1 - weight, self.labels), "agreement": (weight, self.apart)}

    def labels(self, logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
        """The mean of both views."""
        return (by_label(logits, batch) + by_label(self.seen_again(logits, batch), batch)) / 2

    def apart(self, logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
        """The mean of KL there and back."""
        again, temperature = self.seen_again(logits, batch), self.how.temperature
        return (by_teacher(logits, again, temperature) + by_teacher(again, logits, temperature)) / 2

    def seen_again(self, logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
        if self.about is not batch:
            self.about, self.known = batch, answers(self.student, self.second(batch), logits.device)
        return self.known


def second_view(model: nn.Module, folder: Folder) -> View:
    """The same input where the model has dropout; else a text with hidden
    tokens, or a picture moved by a pixel.
    """
    if drops(model):
        return lambda batch: batch
    tokenizer = tokenizer_of(folder) if folder.kind != "image-classification" else None
    known = [
        getattr(tokenizer, name, None) for name in ("mask_token_id", "pad_token_id", "unk_token_id")
    ]
    hidden = next((each for each in known if each is not None), 0)
    return lambda batch: with_inputs(batch, hidden)


def drops(model: nn.Module) -> bool:
    """Return True if the model has dropout. Some attention layers store their dropout probability
    as a number.
    """
    held = [each.p for each in model.modules() if isinstance(each, nn.modules.dropout._DropoutNd)]
    return any(
        share > 0
        for share in (*held, *(getattr(each, "attention_dropout", 0.0) for each in model.modules()))
        if isinstance(share, float)
    )


def with_inputs(batch: Exercises, hidden: int) -> Exercises:
    if "pixel_values" in batch.inputs:
        return replace(
            batch, inputs=batch.inputs | {"pixel_values": moved(batch.inputs["pixel_values"])}
        )
    tokens = batch.inputs["input_ids"]
    return replace(
        batch,
        inputs=batch.inputs
        | {"input_ids": tokens.masked_fill(torch.rand(tokens.shape) < HIDDEN, hidden)},
    )


def moved(pictures: torch.Tensor) -> torch.Tensor:
    """Each by one pixel to a side that is drawn; its edge is seen twice.  (examples, channels,
    height, width) both
    """
    height, width = pictures.shape[-2:]
    larger, sides = (
        pad(pictures, (1, 1, 1, 1), mode="replicate"),
        ASIDE[torch.randint(len(ASIDE), (len(pictures),))].tolist(),
    )
    return torch.stack(
        [
            each[:, top : top + height, left : left + width]
            for each, (top, left) in zip(larger, sides, strict=True)
        ]
    )
