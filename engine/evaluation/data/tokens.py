"""Tokenized texts: one stream cut into windows, or single texts up to a length."""

import hashlib
import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Literal

import numpy as np
import torch

from engine.errors import PlainError, option_name
from engine.evaluation.data.cache import data_folder, load_or_make
from engine.evaluation.data.examples import Text
from engine.models.positions import usable_length
from engine.recipe.tasks import LanguageModeling

FIRST_GUESS = 5  # characters per token; doubled if the tokens are too few
MARGIN = 64  # tokens at the end of a truncated text that may differ from those of the full text


def text_tokens(text: Text, tokenizer: Any, tokens: int) -> np.ndarray:
    """The first ``tokens`` tokens of the joined texts, or all of them, cached on disk. (tokens,)
    int32
    """
    key = hashlib.sha256(
        f"{text.fingerprint} {text.separator!r} {tokens} {tokenizer_key(tokenizer)}".encode()
    ).hexdigest()[:16]
    path = data_folder() / f"tokens-{key}.npy"
    return load_or_make(path, np.load, lambda: leading_tokens(text, tokenizer, tokens), np.save)


def tokenizer_key(tokenizer: Any) -> str:
    """Digest that changes if any text could be tokenized differently."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = (
        tokenization_rules(backend.to_str())
        if hasattr(backend, "to_str")
        else f"{type(tokenizer)} {sorted(tokenizer.get_vocab().items())}"
    )
    return hashlib.sha256(state.encode()).hexdigest()


def tokenization_rules(state: str) -> str:
    """Tokenization rules, without truncation, padding and decoding."""
    return json.dumps(
        {
            name: value
            for name, value in json.loads(state).items()
            if name not in ("truncation", "padding", "decoder")
        },
        sort_keys=True,
    )


def leading_tokens(text: Text, tokenizer: Any, tokens: int) -> np.ndarray:
    """Tokenize only the beginning of the text that is needed."""
    characters = (tokens + MARGIN) * FIRST_GUESS
    while True:
        part = leading_text(text, characters)
        row = tokenizer(part, add_special_tokens=False, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
        if len(part) < characters or len(row) >= tokens + MARGIN:
            return np.array(row[:tokens], dtype=np.int32)
        characters *= 2


def leading_text(text: Text, characters: int) -> str:
    """Beginning of the joined texts, up to a number of characters."""
    parts, left = [], characters
    for index, one in enumerate(text.texts):
        part = text.separator + one if index else one
        parts.append(part[:left])
        left -= len(parts[-1])
        if not left:
            break
    return "".join(parts)


def token_windows(
    stream: np.ndarray, context: int, name: str, prefix: tuple[int, ...] = ()
) -> torch.Tensor:
    """Cut the stream into windows that do not overlap, and drop the remainder. (windows, context)

    Each window starts with ``prefix``, which is part of the context. Raises PlainError if there is
    not one window.
    """
    width = context - len(prefix)
    if width < 1:
        raise PlainError(
            f"A window of {context:,} tokens has no room next to its {len(prefix)} special "
            "tokens; choose a longer context."
        )
    if len(stream) < width:
        raise PlainError(
            f"{name} gives {len(stream):,} tokens, fewer than one window of {context:,}; "
            "choose a shorter context, more tokens or a longer text."
        )
    windows = torch.from_numpy(stream[: len(stream) // width * width].astype(np.int64)).view(
        -1, width
    )
    return (
        torch.cat(
            [torch.tensor(prefix, dtype=torch.int64).expand(len(windows), -1), windows], dim=1
        )
        if prefix
        else windows
    )


def window_prefix(tokenizer: Any, bos: Literal["auto", "always", "never"]) -> tuple[int, ...]:
    """Special tokens at the start of each window: those that the tokenizer adds, or its BOS token
    if always requested.

    Raises PlainError if it is requested and the tokenizer has none.
    """
    if bos == "never":
        return ()
    added = leading_special_tokens(tokenizer)
    if added or bos == "auto":
        return added
    if getattr(tokenizer, "bos_token_id", None) is None:
        raise PlainError(
            "The tokenizer has no beginning-of-sequence token (BOS); set "
            f"{option_name(LanguageModeling, 'bos')} to auto or never."
        )
    return (tokenizer.bos_token_id,)


def leading_special_tokens(tokenizer: Any) -> tuple[int, ...]:
    """Special tokens that the tokenizer adds before a text by default."""
    plain, with_special = (
        tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True)
    )
    starts = range(len(with_special) - len(plain) + 1) if plain else ()
    return next(
        (
            tuple(with_special[:start])
            for start in starts
            if with_special[start : start + len(plain)] == plain
        ),
        (),
    )


def first_target(prefix: tuple[int, ...]) -> int:
    """Position of the first predicted token in a window; the very first token has no context."""
    return max(1, len(prefix))


Texts = list[str] | list[tuple[str, str]]  # single texts or pairs


def token_batches(
    texts: Texts, tokenizer: Any, length: int, batch_size: int
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Indices into ``texts`` and their model inputs, at most ``batch_size`` texts per batch.

    Texts of equal length share a batch, so nothing is padded: a result depends on its own text
    only, and statistics of layer inputs contain no padding.
    """
    encoded = encoded_texts(texts, tokenizer, length)
    rows = encoded["input_ids"]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for size, indices in groupby(order, key=lambda index: len(rows[index])):
        for batch in chunks(list(indices), batch_size if size else 1):
            more = {
                name: torch.tensor([values[index] for index in batch])
                for name, values in encoded.items()
                if name != "input_ids"
            }
            yield batch, model_inputs([rows[index] for index in batch]) | more


def encoded_texts(texts: Texts, tokenizer: Any, length: int) -> dict[str, list[list[int]]]:
    """``input_ids`` of each text or pair, cut to ``length``, and ``token_type_ids`` for pairs.
    ``inputs_on_device`` keeps the latter for models that have embeddings for them; teacher and
    student may differ.
    """
    options = {"truncation": True, "max_length": length, "return_attention_mask": False}
    if not texts or not isinstance(texts[0], tuple):
        return {"input_ids": tokenizer(texts, **options)["input_ids"]}
    first, second = map(list, zip(*texts, strict=True))
    encoded = tokenizer(first, second, return_token_type_ids=True, **options)
    return {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}


def as_one_text(text: str | tuple[str, str]) -> str:
    """Text or pair in readable form."""
    return text if isinstance(text, str) else " ⏎ ".join(text)


def model_inputs(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    tokens = torch.tensor(rows, dtype=torch.int64)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


# --- what fits the model --------------------------------------------------------------------------


def check_context(context: int, config: Any, option: str) -> None:
    """Check that windows fit into the model's context. ``option`` names the setting in messages.

    Raises PlainError if a window is longer than the model can read.
    """
    limit = usable_length(config)
    if limit is not None and context > limit:
        raise PlainError(
            f"A window of {context:,} tokens exceeds the {limit:,} that this model reads; "
            f"set {option} to at most {limit:,}."
        )


def check_vocabulary(tokens: np.ndarray, config: Any) -> None:
    """Check that the model has an embedding for every token.

    Raises PlainError if the tokenizer returns a token without an embedding.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    vocabulary = getattr(text, "vocab_size", None)
    if vocabulary and len(tokens) and (largest := int(tokens.max())) >= vocabulary:
        raise PlainError(
            f"The tokenizer gives token {largest:,} but the model knows {vocabulary:,}; use "
            "the tokenizer it was trained with."
        )
