"""Texts as tokens: one row of them cut into windows, or single texts of at most some length."""

import hashlib
import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
import torch

from engine.errors import PlainError
from engine.work.tasks.cache import kept_in, kept_or_made
from engine.work.tasks.data import Text

FIRST_GUESS = 5  # characters of one token; when that was too few, twice as many
MARGIN = 64  # tokens at the end of a cut text that may differ from those of the whole


def stream_of(text: Text, tokenizer: Any, tokens: int) -> np.ndarray:
    """The first ``tokens`` tokens of the joined texts, or all there are; kept on disk.  (tokens,) int32"""
    key = hashlib.sha256(f"{text.fingerprint} {text.separator!r} {tokens} {tokenizer_key(tokenizer)}".encode()).hexdigest()[:16]
    path = kept_in() / f"tokens-{key}.npy"
    return kept_or_made(path, np.load, lambda: tokenized(text, tokenizer, tokens), np.save)


def tokenizer_key(tokenizer: Any) -> str:
    """Changes when any text could come out as other tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = rules(backend.to_str()) if hasattr(backend, "to_str") else f"{type(tokenizer)} {sorted(tokenizer.get_vocab().items())}"
    return hashlib.sha256(state.encode()).hexdigest()


def rules(state: str) -> str:
    """By which texts are cut: without how long they were and how padded when the tokenizer was saved, and without the way back."""
    return json.dumps({name: value for name, value in json.loads(state).items() if name not in ("truncation", "padding", "decoder")}, sort_keys=True)


def tokenized(text: Text, tokenizer: Any, tokens: int) -> np.ndarray:
    """Reads no more of the text than it needs."""
    characters = (tokens + MARGIN) * FIRST_GUESS
    while True:
        part = joined(text, characters)
        row = tokenizer(part, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        if len(part) < characters or len(row) >= tokens + MARGIN:
            return np.array(row[:tokens], dtype=np.int32)
        characters *= 2


def joined(text: Text, characters: int) -> str:
    """At most so many characters from the beginning of the texts, the separator between two."""
    parts, left = [], characters
    for index, one in enumerate(text.texts):
        part = text.separator + one if index else one
        parts.append(part[:left])
        left -= len(parts[-1])
        if not left:
            break
    return "".join(parts)


def windows_of(stream: np.ndarray, context: int, name: str) -> torch.Tensor:
    """The stream cut into windows that do not overlap; what is left over is dropped.  (windows, context)

    Raises PlainError when there is not even one.
    """
    if len(stream) < context:
        raise PlainError(
            f"{name} gives {len(stream):,} tokens, fewer than one window of {context:,}; choose a shorter context, more tokens or a longer text."
        )
    return torch.from_numpy(stream[: len(stream) // context * context].astype(np.int64)).view(-1, context)


def token_batches(texts: list[str], tokenizer: Any, length: int, most: int) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Places in ``texts`` and the model inputs for them, at most ``most`` texts at a time.

    Texts of equal length share a batch, so nothing is padded: a result depends on its own text alone, and statistics
    of layer inputs see no padding.
    """
    rows = tokenizer(texts, truncation=True, max_length=length, return_attention_mask=False)["input_ids"]
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    for size, places in groupby(order, key=lambda place: len(rows[place])):
        for batch in chunks(list(places), most if size else 1):
            yield batch, model_inputs([rows[place] for place in batch])


def model_inputs(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    tokens = torch.tensor(rows, dtype=torch.int64)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def chunks(items: list[Any], most: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]


# --- what fits the model ---------------------------------------------------------------------------------------------


def positions(config: Any) -> int | None:
    """How many positions a model knows; None where nothing limits them."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    names = ("max_position_embeddings", "n_positions", "max_seq_len")
    return next((limit for name in names if isinstance(limit := getattr(text, name, None), int) and limit > 0), None)


def check_context(context: int, config: Any, option: str) -> None:
    """Raises PlainError when a window is longer than the model can read."""
    limit = positions(config)
    if limit is not None and context > limit:
        raise PlainError(f"A window of {context:,} tokens is more than this model's {limit:,} positions; set {option} to at most {limit:,}.")


def check_vocabulary(tokens: np.ndarray, config: Any) -> None:
    """Raises PlainError when the tokenizer gives a token that the model has no row for."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    vocabulary = getattr(text, "vocab_size", None)
    if vocabulary and len(tokens) and (largest := int(tokens.max())) >= vocabulary:
        raise PlainError(f"The tokenizer gives token {largest:,} but the model knows {vocabulary:,}; use the tokenizer it was trained with.")
