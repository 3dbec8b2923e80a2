"""Predictions of two language models over their shared tokens.

Embeddings are often padded to a multiple of 64 or 128, so models with the same tokenizer may have
different numbers of logits. Rows beyond the tokenizer's last token are unused and untrained.
"""

from functools import lru_cache

import torch

from engine.models.loading import tokenizer_of
from engine.models.model_source import ModelSource


@lru_cache(maxsize=16)
def token_count(folder: ModelSource) -> int | None:
    """Number of token ids in the model's tokenizer (largest id plus one); None for image models."""
    return (
        None
        if folder.kind == "image-classification"
        else max(tokenizer_of(folder).get_vocab().values()) + 1
    )


def restrict_to_shared_tokens(logits: list[torch.Tensor], tokens: int | None) -> list[torch.Tensor]:
    """Logits of several models for the same examples, cut to the first ``tokens`` if their widths
    differ, so that softmax only covers the tokenizer's tokens. (..., width) each -> (..., shared
    width)
    """
    widths = {values.shape[-1] for values in logits}
    if len(widths) == 1:
        return logits
    shared = min(*widths, tokens or max(widths))
    return [values[..., :shared] for values in logits]
