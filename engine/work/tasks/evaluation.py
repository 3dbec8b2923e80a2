"""The front of this folder: a task and a model's folder in, numbers or calibration inputs out."""

from collections.abc import Callable
from functools import singledispatch

import torch
from torch import nn

from engine.catalog.tasks import Calibration, ImageClassification, LanguageModeling, Task, TextClassification
from engine.work.models import Folder, config_of, image_processor_of, tokenizer_of
from engine.work.tasks.calibration import batches_for
from engine.work.tasks.classification import image_quality, text_quality
from engine.work.tasks.measured import Measured
from engine.work.tasks.perplexity import perplexity
from engine.work.tasks.progress import Report, never, silent, watched

Cancelled = Callable[[], bool]
Device = torch.device | str


@singledispatch
def evaluate(task: Task, model: nn.Module, folder: Folder, device: Device = "cpu", report: Report = silent, cancelled: Cancelled = never) -> Measured:
    """The model's quality at a task. The model is on ``device`` already; ``folder`` has its tokenizer or image processor.

    Raises PlainError where task, data and model do not fit each other, Cancelled when asked to stop.
    """
    raise TypeError(f"{type(task).__name__} cannot be evaluated")


@evaluate.register
def _(task: LanguageModeling, model, folder, device="cpu", report=silent, cancelled=never) -> Measured:
    return perplexity(task, model, tokenizer_of(folder), device, watched(report, cancelled))


@evaluate.register
def _(task: TextClassification, model, folder, device="cpu", report=silent, cancelled=never) -> Measured:
    return text_quality(task, model, tokenizer_of(folder), device, watched(report, cancelled))


@evaluate.register
def _(task: ImageClassification, model, folder, device="cpu", report=silent, cancelled=never) -> Measured:
    return image_quality(task, model, image_processor_of(folder), device, watched(report, cancelled))


def calibration_batches(
    calibration: Calibration, task: Task, folder: Folder, report: Report = silent, cancelled: Cancelled = never
) -> list[dict[str, torch.Tensor]]:
    """Model inputs on the CPU, a few rows each: ``input_ids`` (and ``attention_mask``) or ``pixel_values``.

    Of a classifier's own data unless the recipe names other, non-bundled, data. Nothing is padded, and nothing in them is what
    quality is measured on. Raises PlainError where that cannot be had.
    """
    reader = image_processor_of(folder) if isinstance(task, ImageClassification) else tokenizer_of(folder)
    return batches_for(task, calibration, reader, config_of(folder), watched(report, cancelled))
