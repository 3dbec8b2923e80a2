"""Model inputs that methods may look at: never those that quality is measured on."""

from functools import singledispatch
from typing import Any

import torch

from engine.catalog.tasks import Calibration, Classification, ImageClassification, LanguageModeling, Task, TextClassification
from engine.errors import PlainError
from engine.work.tasks.classification import channels_of, fitting_length, image_batches
from engine.work.tasks.data import TEXT_SPLITS, Examples, examples_of, text_of
from engine.work.tasks.progress import Report
from engine.work.tasks.sources import is_local
from engine.work.tasks.tokens import check_context, check_vocabulary, stream_of, token_batches, windows_of

ROWS = 8  # windows, texts or images of one batch
Batch = dict[str, torch.Tensor]


@singledispatch
def batches_for(task: Task, calibration: Calibration, reader: Any, config: Any, told: Report) -> list[Batch]:
    """Calibration inputs of a model with this config, whose tokenizer or image processor is ``reader``."""
    raise TypeError(f"{type(task).__name__} has no calibration data")


@batches_for.register
def windows_for(task: LanguageModeling, calibration: Calibration, reader: Any, config: Any, told: Report) -> list[Batch]:
    check_context(calibration.context, config, "calibration.context")
    text = text_of(calibration.text, calibration.text_column, calibration.split, told)
    told("Tokenizing calibration data", 0, 1)
    skip = task.tokens if same_texts(task, calibration) else 0
    stream = stream_of(text, reader, skip + calibration.samples * calibration.context)
    if skip and len(stream) - skip < calibration.context:
        raise PlainError(
            f"{text.name} is also what quality is measured on, and after those {min(skip, len(stream)):,} tokens it has none left to calibrate with; "
            "name another calibration.text or split, or lower task.tokens."
        )
    check_vocabulary(stream, config)
    windows = windows_of(stream[skip:], calibration.context, text.name)[: calibration.samples]
    return [{"input_ids": part} for part in windows.split(ROWS)]


def same_texts(task: LanguageModeling, calibration: Calibration) -> bool:
    """Whether calibration reads from the very texts that quality is measured on; a file has no splits."""
    ours, theirs = (TEXT_SPLITS.get(split, split) if task.text == "bundled:docs" else split for split in (task.split, calibration.split))
    return task.text == calibration.text and (is_local(task.text) or ours == theirs)


@batches_for.register
def texts_for(task: TextClassification, calibration: Calibration, reader: Any, config: Any, told: Report) -> list[Batch]:
    length = fitting_length(task.length, config, reader)
    own = own_data(task, calibration)
    texts = other_examples(task, own, told).inputs if own else text_of(calibration.text, calibration.text_column, calibration.split, told).texts
    most = ROWS if getattr(config, "pad_token_id", None) is not None else 1
    return [inputs for _, inputs in token_batches(texts[: calibration.samples], reader, length, most)]


@batches_for.register
def images_for(task: ImageClassification, calibration: Calibration, reader: Any, config: Any, told: Report) -> list[Batch]:
    own = own_data(task, calibration) or task.model_copy(
        update={"data": calibration.text, "split": calibration.split, "samples": calibration.samples}
    )
    images = other_examples(task, own, told).inputs
    return [inputs for _, inputs in image_batches(images, reader, channels_of(config), ROWS)]


def own_data(task: Classification, calibration: Calibration) -> Classification | None:
    """The classifier's own data, its calibration split; None where the recipe names texts of its own."""
    if not calibration.text.startswith("bundled:") and calibration.text != task.data:
        return None
    return task.model_copy(update={"split": calibration.split, "samples": calibration.samples})


def other_examples(task: Classification, own: Classification, told: Report) -> Examples:
    """Calibration examples. Where a source has no such split, those of the same draw that quality is not measured on."""
    shared = task.data == own.data and (is_local(task.data) or task.split == own.split)
    examples = examples_of(own, told, skip=task.samples if shared else 0)
    if not examples.inputs:
        raise PlainError(
            f"{examples.name} has no examples besides those that quality is measured on; "
            "lower task.samples, or name other data under calibration.text."
        )
    return examples
