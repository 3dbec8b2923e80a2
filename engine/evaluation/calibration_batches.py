"""Model inputs that methods may look at: never those that quality is measured on."""

from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import torch

from engine.errors import PlainError
from engine.evaluation.classification import channels_of, fitting_length, image_batches
from engine.evaluation.data.examples import TEXT_SPLITS, Examples, Text, examples_of, text_of
from engine.evaluation.data.sources import is_local
from engine.evaluation.data.tokens import (
    check_context,
    check_vocabulary,
    stream_of,
    token_batches,
    window_prefix,
    windows_of,
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

ROWS = 8  # windows, texts or images of one batch
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class CalibrationData:
    batches: list[Batch]
    notes: tuple[str, ...] = ()  # assumptions about the data and shortfalls, one sentence each

    @property
    def tokens(self) -> int:
        """Tokens in all batches; 0 for pictures."""
        return sum(batch["input_ids"].numel() for batch in self.batches if "input_ids" in batch)


@singledispatch
def data_for(
    task: Task, calibration: Calibration, reader: Any, config: Any, on_progress: Report
) -> CalibrationData:
    """Calibration inputs of a model with this config, whose tokenizer or image processor is
    ``reader``.
    """
    raise TypeError(f"{type(task).__name__} has no calibration data")


@data_for.register
def windows_for(
    task: LanguageModeling, calibration: Calibration, reader: Any, config: Any, on_progress: Report
) -> CalibrationData:
    stream, text = stream_for(task, calibration, reader, config, on_progress)
    windows = windows_of(stream, calibration.context, text.name, window_prefix(reader, task.bos))[
        : calibration.samples
    ]
    check_vocabulary(windows[0].numpy(), config)
    batches = [{"input_ids": part} for part in windows.split(ROWS)]
    return CalibrationData(
        batches,
        (
            *text.notes,
            *shortfall(
                calibration, len(windows), f"windows of {calibration.context:,} tokens", text.name
            ),
        ),
    )


@data_for.register
def masked_windows_for(
    task: MaskedLanguageModeling,
    calibration: Calibration,
    reader: Any,
    config: Any,
    on_progress: Report,
) -> CalibrationData:
    """Windows masked as for evaluation, with the original tokens as ``labels``."""
    stream, text = stream_for(task, calibration, reader, config, on_progress)
    masked = masked_windows(
        stream, reader, calibration.context, task.mask_share, text.name, task.bos
    )
    inputs, labels = (each[: calibration.samples] for each in masked)
    pairs = zip(inputs.split(ROWS), labels.split(ROWS), strict=True)
    batches = [
        {"input_ids": some, "attention_mask": torch.ones_like(some), "labels": due}
        for some, due in pairs
    ]
    return CalibrationData(
        batches,
        (
            *text.notes,
            *shortfall(
                calibration, len(inputs), f"windows of {calibration.context:,} tokens", text.name
            ),
        ),
    )


def stream_for(
    task: LanguageModeling, calibration: Calibration, reader: Any, config: Any, on_progress: Report
) -> tuple[np.ndarray, Text]:
    """Tokens of the calibration text that are not used for evaluation, and the text."""
    check_context(calibration.context, config, "calibration.context")
    text = text_of(calibration.text, calibration.text_column, calibration.split, on_progress)
    on_progress(ProgressEvent("tokenizing-calibration", 0, 1))
    skip = task.tokens if same_texts(task, calibration) else 0
    stream = stream_of(text, reader, skip + calibration.samples * calibration.context)
    if skip and len(stream) - skip < calibration.context:
        raise PlainError(
            f"{text.name} is also what quality is measured on, and after those "
            f"{min(skip, len(stream)):,} tokens it has none left to calibrate with; "
            "name another calibration.text or split, or lower task.tokens."
        )
    check_vocabulary(stream, config)
    return stream[skip:], text


def shortfall(calibration: Calibration, count: int, unit: str, name: str) -> tuple[str, ...]:
    """Note if the data has fewer examples than requested."""
    if count >= calibration.samples:
        return ()
    return (
        (
            f"Calibration used {count:,} of the {calibration.samples:,} requested {unit} "
            f"(calibration.samples); {name} has no more."
        ),
    )


def same_texts(task: LanguageModeling, calibration: Calibration) -> bool:
    """Return True if calibration reads the evaluation texts; a file has no splits."""
    ours, theirs = (
        TEXT_SPLITS.get(split, split) if task.text == "bundled:docs" else split
        for split in (task.split, calibration.split)
    )
    return task.text == calibration.text and (is_local(task.text) or ours == theirs)


@data_for.register
def texts_for(
    task: TextClassification,
    calibration: Calibration,
    reader: Any,
    config: Any,
    on_progress: Report,
) -> CalibrationData:
    length = fitting_length(task.length, config, reader)
    own = own_data(task, calibration)
    if own:
        data = other_examples(task, own, on_progress)
        texts = data.inputs
    else:
        data = text_of(calibration.text, calibration.text_column, calibration.split, on_progress)
        texts = data.texts
    most = ROWS if getattr(config, "pad_token_id", None) is not None else 1
    batches = [
        inputs for _, inputs in token_batches(texts[: calibration.samples], reader, length, most)
    ]
    return CalibrationData(
        batches, (*data.notes, *shortfall(calibration, len(texts), "texts", data.name))
    )


@data_for.register
def images_for(
    task: ImageClassification,
    calibration: Calibration,
    reader: Any,
    config: Any,
    on_progress: Report,
) -> CalibrationData:
    own = own_data(task, calibration) or task.model_copy(
        update={
            "data": calibration.text,
            "split": calibration.split,
            "samples": calibration.samples,
        }
    )
    data = other_examples(task, own, on_progress)
    batches = [
        inputs for _, inputs in image_batches(data.inputs, reader, channels_of(config), ROWS)
    ]
    return CalibrationData(
        batches, (*data.notes, *shortfall(calibration, len(data.inputs), "images", data.name))
    )


def own_data(task: Classification, calibration: Calibration) -> Classification | None:
    """The classifier's own data, its calibration split; None where the recipe names texts of its
    own.
    """
    if not calibration.text.startswith("bundled:") and calibration.text != task.data:
        return None
    return task.model_copy(update={"split": calibration.split, "samples": calibration.samples})


def other_examples(task: Classification, own: Classification, on_progress: Report) -> Examples:
    """Calibration examples. Where a source has no such split, those of the same draw that quality
    is not measured on.
    """
    shared = task.data == own.data and (is_local(task.data) or task.split == own.split)
    examples = examples_of(own, on_progress, skip=task.samples if shared else 0)
    if not examples.inputs:
        raise PlainError(
            f"{examples.name} has no examples besides those that quality is measured on; "
            "lower task.samples, or name other data under calibration.text."
        )
    return examples
