"""Encoded examples for models of every kind."""

import torch

from engine.training import (
    EncodedExamples,
)
from tests.tiny import LANGUAGE_MODELS


def exercises(architecture: str, count: int = 12) -> EncodedExamples:
    draw = torch.Generator().manual_seed(3)
    if architecture == "resnet":
        return EncodedExamples(
            {"pixel_values": torch.randn(count, 1, 16, 16, generator=draw)},
            torch.arange(count) % 10,
        )
    tokens = torch.randint(5, 250, (count, 9), generator=draw)
    if architecture in LANGUAGE_MODELS:
        return EncodedExamples({"input_ids": tokens}, tokens)
    return EncodedExamples(
        {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}, torch.arange(count) % 3
    )
