"""Loss and accuracy of a masked language model on masked tokens."""

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
    text_tokens,
    token_windows,
)
from engine.evaluation.measured import EvaluationResult, dtype_name, evaluation_mode, finite_loss
from engine.evaluation.perplexity import perplexity_from_loss, windows_per_batch
from engine.events import ProgressEvent, Report
from engine.recipe.tasks import MaskedLanguageModeling
from engine.results.schema.record import Protocol

SEED = 0  # of the masked positions
NOT_MASKED = -100  # label of unmasked positions, which torch's cross-entropy ignores


def masked_quality(
    task: MaskedLanguageModeling,
    model: nn.Module,
    tokenizer: Any,
    device: torch.device | str,
    on_progress: Report,
) -> EvaluationResult:
    """Evaluate a masked language model.

    Raises PlainError if text, tokenizer and model do not match.
    """
    text, inputs, labels = masked_text(task, tokenizer, model.config, on_progress)
    loss, guesses, dtype = masked_loss_and_guesses(model, inputs, labels, device, on_progress)
    right = labels[labels != NOT_MASKED].numpy()
    scores = {
        "perplexity": perplexity_from_loss(loss),
        "loss": loss,
        "accuracy": float((guesses == right).mean()),
    }
    return EvaluationResult(scores, masked_protocol(task, text, labels, dtype), guesses, text.notes)


def masked_text(
    task: MaskedLanguageModeling, tokenizer: Any, config: Any, on_progress: Report
) -> tuple[Text, torch.Tensor, torch.Tensor]:
    """Text of the task, its masked windows and their labels. (windows, context) int64 both"""
    check_context(task.context, config, option_name(task, "context"))
    text = load_text(task.text, task.text_column, task.split, on_progress)
    on_progress(ProgressEvent("tokenizing", 0, 1))
    stream = text_tokens(text, tokenizer, task.tokens)
    check_vocabulary(stream, config)
    return text, *masked_windows(
        stream, tokenizer, task.context, task.mask_share, text.name, task.bos
    )


def masked_windows(
    stream: np.ndarray, tokenizer: Any, context: int, share: float, name: str, bos: str = "auto"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of ``context`` tokens, including special tokens, with the same share of tokens masked
    in each, and their labels: the original tokens, ``NOT_MASKED`` elsewhere. (windows, context)
    int64 both

    Raises PlainError if the tokenizer has no mask token or a window is too short for text.
    """
    if tokenizer.mask_token_id is None:
        raise PlainError(
            "The model's tokenizer has no mask token (mask_token); add its special_tokens_map.json."
        )
    before, after = ([], []) if bos == "never" else special_tokens(tokenizer)
    room = context - len(before) - len(after)
    if room < 2:
        raise PlainError(
            f"A window of {context} tokens has no room for text next to "
            f"{len(before) + len(after)} special tokens; set the context to 16 or more."
        )
    text = token_windows(stream, room, name)
    count = min(room, max(1, round(share * room)))
    generator = torch.Generator().manual_seed(SEED)
    positions = torch.rand(text.shape, generator=generator).argsort(1)[:, :count]
    hidden = torch.zeros_like(text, dtype=torch.bool).scatter_(1, positions, True)
    first, last = (
        torch.tensor(tokens, dtype=torch.int64).expand(len(text), -1) for tokens in (before, after)
    )
    inputs = torch.cat([first, text.masked_fill(hidden, tokenizer.mask_token_id), last], 1)
    labels = torch.cat(
        [
            torch.full_like(first, NOT_MASKED),
            text.masked_fill(~hidden, NOT_MASKED),
            torch.full_like(last, NOT_MASKED),
        ],
        1,
    )
    return inputs, labels


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Tokens that the tokenizer adds before and after a text, such as [CLS] and [SEP]."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    ids = tokenizer("a")["input_ids"]
    begin = next(
        (index for index in range(len(ids)) if ids[index : index + len(plain)] == plain), 0
    )
    return ids[:begin], ids[begin + len(plain) :]


def masked_loss_and_guesses(
    model: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    device: torch.device | str,
    on_progress: Report,
) -> tuple[float, np.ndarray, torch.dtype]:
    """Mean loss of the masked tokens, the predicted token of each in order, and the dtype of the
    logits.
    """
    total, guesses, dtype, done, rows = 0.0, [], torch.float32, 0, 1
    with evaluation_mode(model):
        while done < len(inputs):
            on_progress(ProgressEvent("measuring-masked-tokens", done, len(inputs)))
            inputs_of_rows, labels_of_rows = (
                rows_of[done : done + rows].to(device) for rows_of in (inputs, labels)
            )
            logits = model(
                input_ids=inputs_of_rows, attention_mask=torch.ones_like(inputs_of_rows)
            ).logits
            predicted = logits[labels_of_rows != NOT_MASKED]
            total += finite_loss(
                cross_entropy(
                    predicted.float(), labels_of_rows[labels_of_rows != NOT_MASKED], reduction="sum"
                ).double(),
                "this text",
            )
            guesses.append(predicted.argmax(-1).to(torch.int32).cpu())
            done, dtype, rows = (
                done + len(inputs_of_rows),
                logits.dtype,
                windows_per_batch(logits, device),
            )
    on_progress(ProgressEvent("measuring-masked-tokens", done, done))
    return total / int((labels != NOT_MASKED).sum()), torch.cat(guesses).numpy(), dtype


def masked_protocol(
    task: MaskedLanguageModeling, text: Text, labels: torch.Tensor, dtype: torch.dtype
) -> Protocol:
    windows, context = labels.shape
    targets = int((labels != NOT_MASKED).sum())
    return Protocol(
        task="masked-language-modeling",
        data=text.name,
        fingerprint=text.fingerprint,
        context=context,
        windows=windows,
        targets=targets,
        compute_dtype=dtype_name(dtype),
        measure=f"Masked tokens: the text is tokenized once and cut into windows of {context:,} "
        "tokens that do not overlap, special tokens included; "
        f"{task.mask_share:.0%} of each window's text, drawn with seed {SEED}, is replaced by "
        "the mask token and predicted in one pass. Loss is the "
        f"mean over {targets:,} masked tokens, perplexity its exp, accuracy the share whose most "
        "likely token is the right one.",
    )
