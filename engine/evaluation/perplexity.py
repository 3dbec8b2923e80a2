"""Perplexity of a causal language model over non-overlapping windows."""

import inspect
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from engine.errors import PlainError, option_name
from engine.evaluation.data.examples import Text, load_text
from engine.evaluation.data.tokens import (
    check_context,
    check_vocabulary,
    first_target,
    text_tokens,
    token_windows,
    window_prefix,
)
from engine.evaluation.measured import EvaluationResult, dtype_name, evaluation_mode, finite_loss
from engine.events import ProgressEvent, Report
from engine.recipe.tasks import LanguageModeling
from engine.results.schema.record import Protocol

LOGITS_BYTES = 256 * 2**20  # tokens per batch, in float32
# tokens per batch, on a CPU for each thread: 20% faster than 8192, because of the cache
CPU_TOKENS, GPU_TOKENS = 1024, 32768
TOKENS_PER_LOSS = (
    1024  # tokens whose loss is computed together: their logits stay in the processor's cache
)
MAX_LOSS = 700.0  # nats; exp() overflows beyond this


def perplexity(
    task: LanguageModeling,
    model: nn.Module,
    tokenizer: Any,
    device: torch.device | str,
    on_progress: Report,
) -> EvaluationResult:
    """Measure the perplexity of a language model on the task's text.

    Raises PlainError if text, tokenizer and model do not match.
    """
    check_context(task.context, model.config, option_name(task, "context"))
    text = load_text(task.text, task.text_column, task.split, on_progress)
    on_progress(ProgressEvent("tokenizing", 0, 1))
    stream = text_tokens(text, tokenizer, task.tokens)
    check_vocabulary(stream, model.config)
    prefix = window_prefix(tokenizer, task.bos)
    windows = token_windows(stream, task.context, text.name, prefix)
    check_vocabulary(windows[0].numpy(), model.config)
    loss, guesses, dtype = token_loss_and_guesses(
        model, windows, device, on_progress, first_target(prefix)
    )
    scores = {"perplexity": perplexity_from_loss(loss), "loss": loss}
    return EvaluationResult(
        scores,
        perplexity_protocol(text, windows, dtype, tokenizer.convert_ids_to_tokens(list(prefix))),
        guesses,
        text.notes,
    )


def token_loss_and_guesses(
    model: nn.Module,
    windows: torch.Tensor,
    device: torch.device | str,
    on_progress: Report,
    first: int = 1,
) -> tuple[float, np.ndarray, torch.dtype]:
    """Mean loss, the predicted token for every target, and the dtype of the logits. Tokens before
    ``first`` are context only.
    """
    total, guesses, dtype = 0.0, [], torch.float32
    with evaluation_mode(model):
        for logits, batch in logit_batches(model, windows, device, on_progress):
            losses, guessed = batch_loss_and_guesses(logits, batch, first)
            total += finite_loss(losses, "this text")
            guesses.append(guessed[:, first - 1 : -1].flatten().cpu())
            dtype = logits.dtype
    return total / windows[:, first:].numel(), torch.cat(guesses).numpy(), dtype


def logit_batches(
    model: nn.Module, windows: torch.Tensor, device: torch.device | str, on_progress: Report
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Logits (batch, context, vocabulary) and their input tokens (batch, context)."""
    done, rows = 0, 1  # the first window alone, whose logits determine how many fit
    no_cache = (
        {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    )
    while done < len(windows):
        on_progress(ProgressEvent("measuring-perplexity", done, len(windows)))
        batch = windows[done : done + rows].to(device)
        logits = model(input_ids=batch, **no_cache).logits
        yield logits, batch
        done += len(batch)
        rows = windows_per_batch(logits, device)
    on_progress(ProgressEvent("measuring-perplexity", done, done))


def windows_per_batch(logits: torch.Tensor, device: torch.device | str) -> int:
    """Batch size in windows, from the size of the logits (batch, context, vocabulary)."""
    tokens = (
        CPU_TOKENS * torch.get_num_threads() if torch.device(device).type == "cpu" else GPU_TOKENS
    )
    return max(1, min(tokens // logits.shape[1], LOGITS_BYTES // (4 * logits[0].numel())))


def batch_loss_and_guesses(
    logits: torch.Tensor, tokens: torch.Tensor, first: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss in float32 and predicted tokens (batch, context); the last position, and those
    before ``first`` - 1, have no target.
    """
    targets = torch.cat([tokens[:, 1:], torch.full_like(tokens[:, :1], -100)], dim=1)
    targets[:, : first - 1] = -100
    targets = targets.flatten()
    parts = zip(
        logits.flatten(0, 1).split(TOKENS_PER_LOSS), targets.split(TOKENS_PER_LOSS), strict=True
    )
    results = [
        (cross_entropy(part.float(), target, ignore_index=-100, reduction="sum"), part.argmax(1))
        for part, target in parts
    ]
    losses, guesses = zip(*results, strict=True)
    return torch.stack(losses).double().sum(), torch.cat(guesses).to(torch.int32).view_as(tokens)


def perplexity_from_loss(loss: float) -> float:
    if loss > MAX_LOSS:
        raise PlainError(
            f"The mean loss is {loss:,.0f} nats a token, too much for a perplexity; the "
            "model is compressed too much: use more bits or skip layers."
        )
    return math.exp(loss)


def perplexity_protocol(
    text: Text, windows: torch.Tensor, dtype: torch.dtype, prefix: list[str]
) -> Protocol:
    """Description of the protocol. Without a ``prefix`` it is the same text as in earlier versions,
    so results stay comparable.
    """
    count, context = windows.shape
    scored = context - max(1, len(prefix))
    beginning = f", each beginning with {' '.join(prefix)} (context, not scored)" if prefix else ""
    between = (
        f", joined by {text.separator.count(chr(10))} line feeds," if len(text.texts) > 1 else ""
    )
    return Protocol(
        task="language-modeling",
        data=text.name,
        fingerprint=text.fingerprint,
        context=context,
        windows=count,
        targets=count * scored,
        compute_dtype=dtype_name(dtype),
        measure=f"Perplexity: exp of the mean token loss; the text{between} is tokenized once "
        "without special tokens and cut into windows "
        f"of {context:,} that do not overlap{beginning}, {scored:,} targets each.",
    )
