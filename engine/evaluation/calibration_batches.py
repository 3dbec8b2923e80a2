"""Calibration inputs. They never include evaluation data."""

from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import torch

from engine.errors import PlainError, option_name
from engine.evaluation.classification import checked_length, image_batches, image_channels
from engine.evaluation.data.examples import TEXT_SPLITS, Examples, Text, load_examples, load_text
from engine.evaluation.data.sources import is_local
from engine.evaluation.data.tokens import (
    check_context,
    check_vocabulary,
    text_tokens,
    token_batches,
    token_windows,
    window_prefix,
)
from engine.evaluation.masked import masked_windows
from engine.events import ProgressEvent, Report
from engine.recipe.tasks import (
    Calibration,
    Classification,
    ImageClassification,
    LanguageModeling,
    MaskedLanguageModeling,
    Task,
    TextClassification,
)

ROWS = 8  # windows, texts or images per batch
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class CalibrationData:
    batches: list[Batch]
    notes: tuple[str, ...] = ()  # assumptions about the data and shortfalls, one sentence each

    @property
    def tokens(self) -> int:
        """Tokens in all batches; 0 for images."""
        return sum(batch["input_ids"].numel() for batch in self.batches if "input_ids" in batch)


@singledispatch
def calibration_data_for(
    task: Task, calibration: Calibration, preprocessor: Any, config: Any, on_progress: Report
) -> CalibrationData:
    """Calibration inputs of a model with this config, whose tokenizer or image processor is
    ``preprocessor``.
    """
    raise TypeError(f"{type(task).__name__} has no calibration data")


@calibration_data_for.register
def windows_for(
    task: LanguageModeling,
    calibration: Calibration,
    preprocessor: Any,
    config: Any,
    on_progress: Report,
) -> CalibrationData:
    stream, text = calibration_tokens(task, calibration, preprocessor, config, on_progress)
    windows = token_windows(
        stream, calibration.context, text.name, window_prefix(preprocessor, task.bos)
    )[: calibration.samples]
    check_vocabulary(windows[0].numpy(), config)
    batches = [{"input_ids": part} for part in windows.split(ROWS)]
    return CalibrationData(
        batches,
        (
            *text.notes,
            *shortfall_notes(
                calibration, len(windows), f"windows of {calibration.context:,} tokens", text.name
            ),
        ),
    )


@calibration_data_for.register
def masked_windows_for(
    task: MaskedLanguageModeling,
    calibration: Calibration,
    preprocessor: Any,
    config: Any,
    on_progress: Report,
) -> CalibrationData:
    """Windows masked as for evaluation, with the original tokens as ``labels``."""
    stream, text = calibration_tokens(task, calibration, preprocessor, config, on_progress)
    masked = masked_windows(
        stream, preprocessor, calibration.context, task.mask_share, text.name, task.bos
    )
    inputs, labels = (rows[: calibration.samples] for rows in masked)
    pairs = zip(inputs.split(ROWS), labels.split(ROWS), strict=True)
    batches = [
        {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": targets}
        for tokens, targets in pairs
    ]
    return CalibrationData(
        batches,
        (
            *text.notes,
            *shortfall_notes(
                calibration, len(inputs), f"windows of {calibration.context:,} tokens", text.name
            ),
        ),
    )


def calibration_tokens(
    task: LanguageModeling,
    calibration: Calibration,
    preprocessor: Any,
    config: Any,
    on_progress: Report,
) -> tuple[np.ndarray, Text]:
    """Tokens of the calibration text that are not used for evaluation, and the text."""
    check_context(calibration.context, config, option_name(Calibration, "context"))
    text = load_text(calibration.text, calibration.text_column, calibration.split, on_progress)
    on_progress(ProgressEvent("tokenizing-calibration", 0, 1))
    skip = task.tokens if is_evaluation_text(task, calibration) else 0
    stream = text_tokens(text, preprocessor, skip + calibration.samples * calibration.context)
    if skip and len(stream) - skip < calibration.context:
        raise PlainError(
            f"{text.name} is also the evaluation text, and its first {min(skip, len(stream)):,} "
            "tokens, which are used for evaluation, leave too few for calibration; change "
            f"{option_name(calibration, 'text')} or its split, or lower "
            f"{option_name(task, 'tokens')}."
        )
    check_vocabulary(stream, config)
    return stream[skip:], text


def shortfall_notes(calibration: Calibration, count: int, unit: str, name: str) -> tuple[str, ...]:
    """Note if the data has fewer examples than requested."""
    if count >= calibration.samples:
        return ()
    return (
        (
            f"Calibration used {count:,} of the {calibration.samples:,} requested {unit} "
            f"({option_name(calibration, 'samples')}); {name} has no more."
        ),
    )


def is_evaluation_text(task: LanguageModeling, calibration: Calibration) -> bool:
    """Return True if calibration reads the evaluation texts; a file has no splits."""
    split_of_task, split_of_calibration = (
        TEXT_SPLITS.get(split, split) if task.text == "bundled:docs" else split
        for split in (task.split, calibration.split)
    )
    return task.text == calibration.text and (
        is_local(task.text) or split_of_task == split_of_calibration
    )


@calibration_data_for.register
def texts_for(
    task: TextClassification,
    calibration: Calibration,
    preprocessor: Any,
    config: Any,
    on_progress: Report,
) -> CalibrationData:
    length = checked_length(task.length, config, preprocessor)
    own_task = own_calibration_task(task, calibration)
    if own_task:
        data = calibration_examples(task, own_task, on_progress)
        texts = data.inputs
    else:
        data = load_text(calibration.text, calibration.text_column, calibration.split, on_progress)
        texts = data.texts
    batch_size = ROWS if getattr(config, "pad_token_id", None) is not None else 1
    batches = [
        inputs
        for _, inputs in token_batches(
            texts[: calibration.samples], preprocessor, length, batch_size
        )
    ]
    return CalibrationData(
        batches, (*data.notes, *shortfall_notes(calibration, len(texts), "texts", data.name))
    )


@calibration_data_for.register
def images_for(
    task: ImageClassification,
    calibration: Calibration,
    preprocessor: Any,
    config: Any,
    on_progress: Report,
) -> CalibrationData:
    own_task = own_calibration_task(task, calibration) or task.model_copy(
        update={
            "data": calibration.text,
            "split": calibration.split,
            "samples": calibration.samples,
        }
    )
    data = calibration_examples(task, own_task, on_progress)
    batches = [
        inputs
        for _, inputs in image_batches(data.inputs, preprocessor, image_channels(config), ROWS)
    ]
    return CalibrationData(
        batches, (*data.notes, *shortfall_notes(calibration, len(data.inputs), "images", data.name))
    )


def own_calibration_task(task: Classification, calibration: Calibration) -> Classification | None:
    """The classifier's own data and its calibration split; None if the recipe names other texts."""
    if not calibration.text.startswith("bundled:") and calibration.text != task.data:
        return None
    return task.model_copy(update={"split": calibration.split, "samples": calibration.samples})


def calibration_examples(
    task: Classification, source_task: Classification, on_progress: Report
) -> Examples:
    """Calibration examples. If the source has no calibration split, the evaluation sample is
    excluded.
    """
    shared = task.data == source_task.data and (
        is_local(task.data) or task.split == source_task.split
    )
    examples = load_examples(source_task, on_progress, skip=task.samples if shared else 0)
    if not examples.inputs:
        raise PlainError(
            f"{examples.name} has no examples other than those used for evaluation; "
            f"lower {option_name(task, 'samples')}, or name other data under "
            f"{option_name(Calibration, 'text')}."
        )
    return examples
